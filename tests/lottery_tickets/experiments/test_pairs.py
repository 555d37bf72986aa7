"""Tickets trained in pairs are trainings like all others: planned, resumed, grown, and re-checked."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.studies.forging import change_history, change_mask, change_record, change_state, seal
from hypothesis import given
from hypothesis import strategies as st

from lottery_tickets import create_magnitude_mask
from lottery_tickets._core.folders import to_json_values
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.connectivity.pairs import load_pair, plan_pairs
from lottery_tickets.experiments.folder import CONNECTIVITY, START, WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.growth import grow_plan
from lottery_tickets.experiments.plan import Branch, ExperimentPlan, Training
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.steps import prune_state_
from lottery_tickets.experiments.verification import create_workload_subject, verify_run
from lottery_tickets.experiments.workload_subject import WorkloadSource, WorkloadSubject
from lottery_tickets.workloads import digits_recipe
from tests.lottery_tickets.experiments.verification.runs import failures, make_workload_run

K = 10  # the step at which copies part
SHARED, TICKET, COPY = (Training(0, 0, "shared"), *(Training(0, 1, branch) for branch in ("ticket", "copy")))


def make_plan(**changes: Any) -> ExperimentPlan:  # noqa: ANN401 - settings of many types
    return ExperimentPlan({}, PruningSchedule(), **{"num_levels": 2, "num_steps": 30, "copy_levels": (1,), **changes})


# ------------------------------------------------------------------------------------------------------------- planning


def test_copies_come_after_their_ticket_and_all_after_what_they_share() -> None:
    plan = make_plan(control_levels=(1,), controls=("random",))
    places = [(training.level, training.branch) for training in plan.list_trainings(0)]
    assert places == [(0, "shared"), (0, "ticket"), (1, "ticket"), (1, "copy"), (1, "random"), (2, "ticket")]
    given = make_plan(num_levels=1, ticket_sha256="0" * 64)
    assert [(t.level, t.branch) for t in given.list_trainings(0)] == [(0, "shared"), (1, "ticket"), (1, "copy")]


@given(
    num_levels=st.integers(0, 3),
    data=st.data(),
    is_given=st.booleans(),
    num_replicates=st.integers(1, 3),
)
def test_trainings_are_counted_seeded_apart_and_survive_json(
    num_levels: int, data: st.DataObject, is_given: bool, num_replicates: int
) -> None:
    levels = st.sets(st.integers(0, 1 if is_given else num_levels))
    copies = tuple(sorted(data.draw(levels)))
    controls = tuple(sorted(data.draw(levels) - {0}))
    given_ticket = {"num_levels": 1, "ticket_sha256": "0" * 64} if is_given else {"num_levels": num_levels}
    plan = make_plan(**given_ticket, copy_levels=copies, control_levels=controls, num_replicates=num_replicates)
    trainings = plan.list_all_trainings()
    assert plan.num_trainings == len(trainings) == len({training.path for training in trainings})
    assert ExperimentPlan.from_dict(to_json_values(plan.to_dict())) == plan
    assert {plan.find_first(training.replicate) for training in trainings} <= set(trainings)
    for replicate in range(num_replicates):
        orders = {
            branch: {
                t.derive_seeds(plan)["data_order"] for t in trainings if (t.replicate, t.branch) == (replicate, branch)
            }
            for branch in ("ticket", "copy", "shared")
        }
        assert not orders["ticket"] & orders["copy"]
        assert not orders["shared"] & (orders["ticket"] | orders["copy"])


def test_a_run_without_pairs_is_planned_as_before_and_does_not_become_one_with_pairs() -> None:
    plain, parted, more = (make_plan(copy_levels=levels) for levels in ((), (1,), (0, 1)))
    assert "copy_levels" not in plain.to_dict()
    assert parted.recipe_sha256 == more.recipe_sha256 != plain.recipe_sha256
    assert grow_plan(parted.to_dict(), make_plan(copy_levels=(0,)).to_dict())["copy_levels"] == [0, 1]
    assert "copy_levels" not in grow_plan(plain.to_dict(), parted.to_dict())


# -------------------------------------------------------------------------------------------------------------- running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Iterative pruning with late rewinding, its dense network and its ticket trained in pairs."""
    folder = tmp_path_factory.mktemp("pairs") / "run"
    make_workload_run(folder, copy_levels=(0, 1), rewind_step=K, control_levels=(1,))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_both_copies_start_from_the_shared_weights_and_end_apart(finished: Path) -> None:
    folder = ExperimentFolder.read(finished)
    for replicate, level in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pair = load_pair(folder, replicate, level)
        branches: tuple[Branch, Branch] = ("ticket", "copy")
        copies = [Training(replicate, level, branch) for branch in branches]
        assert {folder.load_record(copy)["start_sha256"] for copy in copies} == {pair.start_sha256}
        assert folder.load_mask(copies[0]) == folder.load_mask(copies[1])
        assert any(not torch.equal(pair.first[name], pair.second[name]) for name in pair.first)
        if level == 0:
            shared = folder.load_weights(Training(replicate, 0, "shared"))
            assert hash_state(shared) == pair.start_sha256 != hash_state(folder.load_start(copies[0]))
    assert folder.load_record(SHARED)["history"]["end"]["step"] == K


def test_every_training_of_pairs_is_shown_by_training_again(finished: Path) -> None:
    checks = verify_run(finished, create_workload_subject(finished), num_trained_again=99)
    assert not [check for check in checks if check.problem or check.note]
    again = [check.where for check in checks if check.name.startswith("trained again")]
    assert len(again) == ExperimentFolder.read(finished).plan.num_trainings == 2 * (1 + 2 + 2 + 3)


def test_copies_of_learning_rate_rewinding_go_on_from_trained_weights(tmp_path: Path) -> None:
    make_workload_run(tmp_path, copy_levels=(1,), rewind_step=K, rewinding="learning_rate", num_replicates=1)
    assert not failures(tmp_path)
    folder = ExperimentFolder.read(tmp_path)
    trained, mask = folder.load_weights(TICKET.dense), folder.load_mask(TICKET)
    prune_state_(trained, mask)
    assert load_pair(folder, 0, 1).start_sha256 == hash_state(trained)


def test_pairs_grow_and_keep_their_bits(finished: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    make_workload_run(grown, copy_levels=(1,), rewind_step=K, num_replicates=1)
    before = {path: path.read_bytes() for path in grown.rglob("*.safetensors")}
    make_workload_run(grown, copy_levels=(0, 1), rewind_step=K, control_levels=(1,))
    assert before.items() <= {path: path.read_bytes() for path in grown.rglob("*.safetensors")}.items()
    both = (
        {str(path.relative_to(place)): path.read_bytes() for path in place.glob("replicate*/*/*")}
        for place in (grown, finished)
    )
    assert next(both) == next(both)
    with pytest.raises(ValueError, match="copy_levels is"):
        make_workload_run(grown, rewind_step=K, control_levels=(1,))


def test_the_pairs_of_a_ticket_that_is_given_come_when_they_are_asked_for(tmp_path: Path) -> None:
    """The dense pair alone, then the ticket's beside it: a search looks at each network where it needs to."""
    recipe = replace(digits_recipe("lenet-300-100"), num_steps=12, evaluation_interval=6)
    fresh = WorkloadSource("digits", "lenet-300-100", recipe=recipe)()
    start = copy_state(fresh.build(3))
    mask = create_magnitude_mask(fresh.build(3), 0.5)
    subject, other = (WorkloadSubject(fresh.workload, ticket=ticket, start=start) for ticket in (mask, ~mask))
    for levels, num_trainings in (((0,), 3), ((1,), 5)):
        plan = plan_pairs(subject, num_steps=12, rewind_step=4, levels=levels, num_replicates=1, seed=0)
        found = run_experiment(ExperimentFolder(tmp_path, plan, made_by=CONNECTIVITY), lambda: subject)
        assert len(found["trainings"]) == num_trainings
        checks = verify_run(tmp_path, create_workload_subject(tmp_path), num_trained_again=9)
        assert not [check for check in checks if check.problem]
    checks = verify_run(tmp_path, other)
    assert "the ticket that was given is another one" in [check.problem for check in checks]


# ------------------------------------------------------------------------------------------------------------ forgeries


def pass_the_ticket_off_as_its_copy(run: Path) -> None:
    shutil.copy(run / TICKET.path / WEIGHTS, run / COPY.path / WEIGHTS)
    for name in ("early_stop.safetensors",):
        (run / COPY.path / name).unlink(missing_ok=True)
        if (run / TICKET.path / name).exists():
            shutil.copy(run / TICKET.path / name, run / COPY.path / name)
    change_record(run, COPY, history=ExperimentFolder.read(run).load_record(TICKET)["history"])


STATES = "its checkpoints are those of a trained network"
STARTED = "it started from the stored weights"
FORGERIES: dict[str, tuple[Callable[[Path], object], Training, str]] = {
    "a copy that is its ticket": (pass_the_ticket_off_as_its_copy, COPY, STATES),
    "a copy from elsewhere": (lambda run: change_record(run, COPY, start_sha256=hash_state({})), COPY, STARTED),
    "another mask": (
        lambda run: change_mask(run, COPY, lambda kept, _: kept.logical_not_()),
        COPY,
        "its mask follows from the trainings before it",
    ),
    "another theta_k": (
        lambda run: change_state(run, SHARED, WEIGHTS, lambda state: state["fc1.weight"].mul_(2)),
        TICKET,
        STARTED,
    ),
    "another theta_0": (
        lambda run: change_state(run, SHARED, START, lambda state: state["fc1.weight"].mul_(2)),
        SHARED,
        STARTED,
    ),
    "theta_0 left out": (
        lambda run: (run / SHARED.path / START).unlink(),
        SHARED,
        "its files are whole and unaltered",
    ),
    "another step k": (
        lambda run: change_history(run, SHARED, lambda history: history["end"].update(step=K + 1)),
        SHARED,
        "its history is one that the plan gives",
    ),
    "more of a history": (
        lambda run: change_history(run, SHARED, lambda history: history.update(early_stop=history["end"])),
        SHARED,
        "its history is one that the plan gives",
    ),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_pair_is_found_though_all_hashes_fit(run: Path, case: str) -> None:
    forge, where, check = FORGERIES[case]
    assert not failures(run)
    forge(run)
    seal(run)
    assert (where.path, check) in failures(run)

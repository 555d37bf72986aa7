"""Measured again, checkpoints have their figures and starts follow from seeds; what files cannot show is found then."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.studies.forging import change_history, change_marker, change_record, change_state, replace, seal
from torch import nn

from lottery_tickets import compute_iterative_magnitude_pruning, compute_lottery_ticket_quality, create_magnitude_mask
from lottery_tickets._core.files import read_json
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.experiments.folder import EARLY_STOP, RECORD, REWIND, WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.steps import prune_state_
from lottery_tickets.experiments.verification import (
    create_caller_subject,
    create_workload_subject,
    describe_scope,
    verify_run,
)
from lottery_tickets.experiments.verification.remeasuring import TRAINED_AGAIN
from tests.lottery_tickets.experiments.callers import DATA, Trainer, equal, make_model
from tests.lottery_tickets.experiments.verification.runs import failed, make_workload_run

DENSE, TICKET, CONTROL = (Training(0, 0, "ticket"), Training(0, 1, "ticket"), Training(0, 1, "reinitialised"))
END, EARLY = (f"its figures at {moment} are those of its weights" for moment in ("end", "early_stop"))
START, SUBJECT = "its start follows from model and seed", "what measures is what was trained"


@pytest.fixture(scope="module")
def finished_controlled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "controlled"
    make_workload_run(folder, num_replicates=1, control_levels=(1,))
    return folder


@pytest.fixture
def controlled_run(finished_controlled_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of one replicate with its controls, to be tampered with."""
    return Path(shutil.copytree(finished_controlled_run, tmp_path / "controlled"))


def measured(run: Path, subject: Any = None) -> set[tuple[str, str]]:  # noqa: ANN401 - a subject of any kind
    checks = verify_run(run, subject or create_workload_subject(run))
    return {(check.where, check.name) for check in checks if check.problem}


@pytest.mark.parametrize("settings", [{}, {"rewind_step": 3, "rewinding": "learning_rate"}])
def test_a_fresh_run_has_its_figures_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    make_workload_run(tmp_path / "run", num_replicates=1, control_levels=(1,), **settings)
    checks = verify_run(tmp_path / "run", create_workload_subject(tmp_path / "run"))
    assert [check for check in checks if check.problem or check.note] == []
    assert sum(check.name in {START, END, EARLY} for check in checks) == 5 * 3


def test_figures_do_not_depend_on_the_number_of_threads(workload_run: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert measured(workload_run) == set()
    finally:
        torch.set_num_threads(threads)


def claim(moment: str) -> Callable[[dict[str, Any]], None]:
    return lambda history: history[moment].update(test_accuracy=0.9, test_loss=0.2)


def scale(factor: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda state: [tensor.mul_(factor) for tensor in state.values()]


def draw_another_start(run: Path) -> None:
    """Passes weights of another seed off as theta_0: of the dense network, and of all that is rewound to it."""
    change_state(
        run, DENSE, REWIND, lambda state: [tensor.copy_(torch.randn(tensor.shape)) for tensor in state.values()]
    )
    folder = ExperimentFolder.read(run)
    start = folder.load_rewind_point(DENSE)
    change_record(run, DENSE, start_sha256=hash_state(start))
    prune_state_(start, folder.load_mask(TICKET))
    change_record(run, TICKET, start_sha256=hash_state(start))


FORGERIES: dict[str, tuple[Callable[[Path], object], Training, str]] = {
    "a forged accuracy": (lambda run: change_history(run, TICKET, claim("end")), TICKET, END),
    "a forged early stop": (lambda run: change_history(run, TICKET, claim("early_stop")), TICKET, EARLY),
    "a ticket doubled": (lambda run: change_state(run, TICKET, WEIGHTS, scale(2)), TICKET, END),
    "dense weights times 1.5": (lambda run: change_state(run, DENSE, WEIGHTS, scale(1.5)), DENSE, END),
    "an early stop doubled": (lambda run: change_state(run, TICKET, EARLY_STOP, scale(2)), TICKET, EARLY),
    "another theta_0": (draw_another_start, DENSE, START),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_what_the_files_cannot_show_is_found(workload_run: Path, case: str) -> None:
    forge, training, name = FORGERIES[case]
    forge(workload_run)
    seal(workload_run)
    assert failed(workload_run) == [], "the files fit one another"
    assert (training.path, name) in measured(workload_run)


def test_a_replicate_of_another_run_is_found(workload_run: Path, tmp_path: Path) -> None:
    make_workload_run(tmp_path / "other", num_replicates=1, seed=7)
    for training in (DENSE, TICKET):
        replace(workload_run, training, tmp_path / "other" / training.path)
    seal(workload_run)
    assert failed(workload_run) == []
    assert measured(workload_run) == {(DENSE.path, START)}


def test_another_start_of_a_control_is_found(controlled_run: Path) -> None:
    change_record(controlled_run, CONTROL, start_sha256=hash_state({}))
    seal(controlled_run)
    assert failed(controlled_run) == []
    assert measured(controlled_run) == {(CONTROL.path, START)}


def test_a_forged_share_that_moved_from_a_start_that_is_not_stored_is_found(controlled_run: Path) -> None:
    layers = read_json(controlled_run / CONTROL.path / RECORD)["layers"]
    layers["fc1.weight"]["num_moved"] -= 1
    change_record(controlled_run, CONTROL, layers=layers)
    seal(controlled_run)
    assert failed(controlled_run) == []
    assert measured(controlled_run) == {(CONTROL.path, START)}


def test_another_environment_is_measured_within_a_tolerance_that_is_said(workload_run: Path) -> None:
    here = read_json(workload_run / DENSE.path / RECORD)["environment"]
    change_marker(workload_run, lambda stored: stored["environments"].append({**here, "torch": "1.0"}))
    change_record(workload_run, TICKET, environment={**here, "torch": "1.0"})
    change_history(
        workload_run, TICKET, lambda history: history["end"].update(test_loss=history["end"]["test_loss"] + 1e-4)
    )
    seal(workload_run)
    checks = verify_run(workload_run, create_workload_subject(workload_run))
    assert [check for check in checks if check.problem] == []
    assert {check.where for check in checks if check.note} == {TICKET.path}
    said = describe_scope(workload_run, checks, is_measured=True)
    assert "made in 2 environments, so equal bits are not claimed" in said
    assert any(line.startswith("measured where torch is '1.0' there") and "within 0.001" in line for line in said)
    change_history(workload_run, TICKET, claim("end"))
    seal(workload_run)
    assert measured(workload_run) == {(TICKET.path, END)}


@pytest.mark.parametrize("name", ["history", "environment", "seeds", "start_sha256", "num_kept", "files"])
@pytest.mark.parametrize("values", [(None, {}), ([1], "text")], ids=["empty", "full"])
def test_records_of_another_form_are_found_and_never_measured(
    workload_run: Path, name: str, values: tuple[Any, Any]
) -> None:
    """One value for the ticket of each replicate: to measure a run costs most."""
    tickets = [Training(replicate, 1, "ticket") for replicate in (0, 1)]
    for ticket, value in zip(tickets, values, strict=True):
        change_record(workload_run, ticket, **{name: value})
    found = measured(workload_run)
    assert {ticket.path for ticket in tickets} <= {where for where, _ in found}
    assert not any(name in {START, END, EARLY} for _, name in found)


def test_other_data_is_no_data_to_measure_on(workload_run: Path) -> None:
    def change(stored: dict[str, Any]) -> None:
        stored["settings"]["subject"]["data_sha256"] = "0"

    change_marker(workload_run, change)
    seal(workload_run, under_plan=True)
    assert failed(workload_run) == []
    assert measured(workload_run) == {("run.json", SUBJECT)}


# ------------------------------------------------------------------------------------------------------- training again


def trained_again(run: Path, subject: Any = None) -> set[tuple[str, str]]:  # noqa: ANN401 - a subject of any kind
    checks = verify_run(run, subject or create_workload_subject(run), num_trained_again=100)
    return {(check.where, check.name) for check in checks if check.problem}


@pytest.mark.parametrize("settings", [{}, {"rewind_step": 3}])
def test_trained_again_a_run_ends_in_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    make_workload_run(tmp_path, num_replicates=1, control_levels=(1,), **settings)
    checks = verify_run(tmp_path, create_workload_subject(tmp_path), num_trained_again=100)
    assert [check for check in checks if check.problem] == []
    assert sum(check.name == TRAINED_AGAIN for check in checks) == 5
    said = describe_scope(tmp_path, checks, is_measured=True)
    assert said[-1] == "trained again: 5 of 5 trainings, drawn at random, end in the same bits"
    some = verify_run(tmp_path, create_workload_subject(tmp_path), num_trained_again=2)
    assert sum(check.name == TRAINED_AGAIN for check in some) == 2
    assert "still open: whether the others took place as recorded" in describe_scope(tmp_path, some, is_measured=True)


def raise_a_point_of_the_curve(run: Path) -> None:
    change_history(run, DENSE, lambda history: history["curve"]["validation_loss"].__setitem__(0, 9.0))


def move_a_weight_by_a_bit(run: Path) -> None:
    change_state(run, TICKET, WEIGHTS, lambda state: state["output.bias"].mul_(1 + 2**-23))


def claim_another_learning_rate(run: Path) -> None:
    def change(stored: dict[str, Any]) -> None:
        stored["settings"]["subject"]["recipe"]["optimizer_arguments"]["lr"] = 0.01

    change_marker(run, change)


@pytest.mark.parametrize(
    ("forge", "where"),
    [
        (raise_a_point_of_the_curve, {DENSE.path}),
        (move_a_weight_by_a_bit, {TICKET.path}),
        (claim_another_learning_rate, {f"replicate-{r}/level-0{level}-ticket" for r in (0, 1) for level in (0, 1)}),
    ],
)
def test_what_measuring_cannot_show_is_found_by_training_again(
    workload_run: Path, forge: Callable[[Path], None], where: set[str]
) -> None:
    forge(workload_run)
    seal(workload_run, under_plan=True)
    assert failed(workload_run) == []
    assert {name for _, name in measured(workload_run)} <= {END}, "a bit of a bias may move the loss"
    assert {place for place, name in trained_again(workload_run) if name == TRAINED_AGAIN} == where


def test_a_caller_trains_again(caller_run: Path) -> None:
    model = make_model()
    start, subject = copy_state(model), create_caller_subject(caller_run, model, DATA, trainer_fn=Trainer())
    assert trained_again(caller_run, subject) == set()
    assert equal(copy_state(model), start)


def test_another_environment_is_not_trained_in_again(workload_run: Path) -> None:
    change_marker(workload_run, lambda stored: stored["environments"][0].update(torch="1.0"))
    for training in ExperimentFolder.read(workload_run).plan.list_all_trainings():
        environment = read_json(workload_run / training.path / RECORD)["environment"]
        change_record(workload_run, training, environment={**environment, "torch": "1.0"})
    seal(workload_run)
    checks = verify_run(workload_run, create_workload_subject(workload_run), num_trained_again=100)
    assert any(check.note.startswith("not trained again where torch is '1.0' there") for check in checks)
    assert not any(line.startswith("trained again") for line in describe_scope(workload_run, checks, is_measured=True))


# --------------------------------------------------------------------------------------------------- models of a caller


@pytest.fixture(scope="module")
def finished_caller_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "caller"
    settings: dict[str, Any] = {"num_epochs": 2, "num_replicates": 2, "prune_rates": 0.3}
    compute_iterative_magnitude_pruning(make_model(), DATA, 0.3, trainer_fn=Trainer(), run_folder=folder, **settings)
    return folder


@pytest.fixture
def caller_run(finished_caller_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_caller_run, tmp_path / "caller"))


def test_a_caller_measures_with_model_and_data(caller_run: Path) -> None:
    model = make_model()
    start = copy_state(model)
    subject = create_caller_subject(caller_run, model, DATA, trainer_fn=Trainer())
    assert measured(caller_run, subject) == set()
    assert equal(copy_state(model), start)
    change_state(caller_run, TICKET, WEIGHTS, scale(2))
    change_record(caller_run, CONTROL, start_sha256=hash_state({}))
    seal(caller_run)
    assert failed(caller_run) == []
    assert measured(caller_run, subject) == {(TICKET.path, END), (CONTROL.path, START)}


@pytest.mark.parametrize(
    ("model", "data"),
    [(make_model(1), DATA), (nn.Linear(6, 3), DATA), (make_model(), DATA[:1])],
    ids=["start", "kind", "data"],
)
def test_another_model_or_other_data_is_told(caller_run: Path, model: nn.Module, data: Any) -> None:  # noqa: ANN401 - batches
    assert measured(caller_run, create_caller_subject(caller_run, model, data, trainer_fn=Trainer()))


@pytest.mark.parametrize(("fact", "other"), [("digest", "other"), ("says", "other"), ("num_samples", 1)])
def test_other_words_on_the_data_of_a_caller_are_found(caller_run: Path, fact: str, other: object) -> None:
    change_marker(caller_run, lambda stored: stored["identities"]["data"].update({fact: other}))
    seal(caller_run)
    subject = create_caller_subject(caller_run, make_model(), DATA, trainer_fn=Trainer())
    assert measured(caller_run, subject) == {("run.json", SUBJECT)}


def test_data_that_was_named_is_not_compared(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "num_epochs": 1,
        "control_levels": "none",
        "data_id": "v1",
        "run_folder": tmp_path / "run",
    }
    compute_iterative_magnitude_pruning(make_model(), DATA, 0.2, trainer_fn=Trainer(), **settings)
    subject = create_caller_subject(tmp_path / "run", make_model(), DATA, trainer_fn=Trainer())
    assert measured(tmp_path / "run", subject) == set()


def test_a_ticket_trained_again_is_measured_again(tmp_path: Path) -> None:
    model = make_model()
    mask = create_magnitude_mask(model, 0.5)
    compute_lottery_ticket_quality(model, mask, DATA, trainer_fn=Trainer(), num_epochs=1, run_folder=tmp_path / "run")
    subject = create_caller_subject(tmp_path / "run", model, DATA, trainer_fn=Trainer())
    assert measured(tmp_path / "run", subject) == set()


def test_each_kind_of_run_has_its_subject(caller_run: Path, workload_run: Path) -> None:
    with pytest.raises(ValueError, match=r"is of a network of its maker's own.*call verify_run"):
        create_workload_subject(caller_run)
    with pytest.raises(ValueError, match="must be a run made from Python"):
        create_caller_subject(workload_run, make_model(), DATA)

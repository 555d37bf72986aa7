"""An experiment is a folder: planned without running, killed at any moment, resumed to the same bits."""

import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.files import exclusive_lock, read_json
from lottery_tickets._core.folders import to_json_values
from lottery_tickets._core.measuring.evaluating import evaluate_batches
from lottery_tickets.experiments.plan import CONTROLS, ExperimentPlan, Training
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.verification import verify_run
from lottery_tickets.experiments.workload_subject import WorkloadSubject, find_lr_factor
from lottery_tickets.workloads import paper_recipe
from tests.models import load_digits
from unified_model_analysis.cli import main

ROOT = Path(__file__).parents[3]


def make_plan(**changes: object) -> ExperimentPlan:
    settings = {
        "subject": {},
        "schedule": PruningSchedule(),
        "num_levels": 3,
        "num_steps": 10,
        "control_levels": (1, 3),
    }
    return ExperimentPlan(**{**settings, **changes})  # type: ignore[arg-type] # settings of many types


# ------------------------------------------------------------------------------------------------------- plan and seeds


def test_trainings_come_in_order_with_controls_beside_their_ticket() -> None:
    plan = make_plan(num_replicates=2)
    paths = [training.path for training in plan.list_trainings(1)]
    assert paths[:3] == [f"replicate-1/level-0{name}" for name in ("0-ticket", "1-ticket", "1-reinitialised")]
    assert len(paths) == 4 + 2 * len(CONTROLS)
    assert len({training.path for training in plan.list_all_trainings()}) == 2 * len(paths)


def test_plans_survive_json() -> None:
    plan = make_plan(schedule=PruningSchedule((("out.*", 0.1), ("*", 0.2)), "layer", 0.9), rewind_step=3)
    assert ExperimentPlan.from_dict(to_json_values(plan.to_dict())) == plan


def test_each_use_of_chance_has_a_seed_of_its_own() -> None:
    plan = make_plan(num_replicates=2, data_order="fresh")
    tickets: list[dict[str, int]] = []
    controls: list[dict[str, int]] = []
    for training in plan.list_all_trainings():
        (tickets if training.branch == "ticket" else controls).append(training.derive_seeds(plan))
    orders = [seeds["data_order"] for seeds in (*tickets, *controls)]
    assert len(set(orders)) == len(orders), "a fresh order for each training"
    assert len({seeds["initialisation"] for seeds in tickets}) == 2, "one theta_0 a replicate"
    assert len({seeds["mask"] for seeds in controls}) == len(controls)
    every = {seed for seeds in (*tickets, *controls) for seed in seeds.values()}
    assert len(every) == len(orders) + 2 + 2 * 2 * 2 + len(tickets) + len(controls), "fresh weights for two controls"


def test_changing_one_use_of_chance_leaves_the_others() -> None:
    training = Training(0, 3, "shuffled")
    same, fresh = (training.derive_seeds(make_plan(data_order=order)) for order in ("same", "fresh"))
    assert same["data_order"] != fresh["data_order"]
    assert (same["initialisation"], same["mask"]) == (fresh["initialisation"], fresh["mask"])
    more = training.derive_seeds(make_plan(num_replicates=9, num_levels=9, num_steps=99, control_levels=(3,)))
    assert more == same, "more levels, replicates or steps shift no seed"
    other = training.derive_seeds(make_plan(seed=1))
    assert not set(other.values()) & set(same.values())


def test_a_replicate_shows_every_level_the_same_order_unless_asked() -> None:
    trainings = [t for t in make_plan(num_replicates=2).list_all_trainings() if t.replicate == 0]
    assert len({t.derive_seeds(make_plan())["data_order"] for t in trainings}) == 1
    assert Training(1, 0, "ticket").derive_seeds(make_plan()) != Training(0, 0, "ticket").derive_seeds(make_plan())


def test_fresh_weights_start_at_step_0_and_rewound_ones_at_k() -> None:
    plan = make_plan(rewind_step=4)
    steps = {training.branch: training.first_step(plan) for training in plan.list_trainings(0) if training.level == 3}
    assert steps == {"ticket": 4, "reinitialised": 0, "shuffled": 4, "random": 0}
    assert Training(0, 0, "ticket").first_step(plan) == 0


WRONG = {
    "num_levels": (-1, "from 0 to 1000"),
    "num_steps": (0, "at least 1"),
    "rewind_step": (10, r"in \[0, 10\)"),
    "rewinding": ("weight", "'weights' or 'learning_rate'"),
    "data_order": ("random", "'same' or 'fresh'"),
    "num_replicates": (0, "from 1 to 10000"),
    "controls": (("dense",), "among .*"),
    "control_levels": ((1, 1), r"in range\(1, 4\), each once"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused(name: str) -> None:
    value, allowed = WRONG[name]
    with pytest.raises(ValueError, match=rf"{name} must be .*{allowed}, but got"):
        make_plan(**{name: value})


# ----------------------------------------------------------------------------------------------- batches and evaluation


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 30), st.integers(0, 5))
@settings(deadline=None)
def test_batches_from_a_step_are_those_after_skipping(size: int, batch_size: int, step: int, seed: int) -> None:
    batches = TensorBatches(torch.arange(size), -torch.arange(size), batch_size, seed)
    skipped = itertools.islice(batches.from_step(0), step, step + 4)
    for (inputs, targets), (others, _) in zip(itertools.islice(batches.from_step(step), 4), skipped, strict=True):
        assert torch.equal(inputs, others)
        assert torch.equal(targets, -inputs)


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    batches = TensorBatches(torch.arange(10), torch.arange(10), 4, seed=0).from_step(0)
    epochs = [torch.cat([next(batches)[0] for _ in range(3)]) for _ in range(3)]
    assert all(epoch.sort().values.tolist() == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3


@pytest.mark.parametrize("raises", [True, False])
def test_evaluation_gives_back_every_mode(raises: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).train()
    model[1].eval()
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if raises:
        with pytest.raises(TypeError, match="a batch must be"):
            evaluate_batches(model, ["not a batch"])
    else:
        evaluate_batches(model, [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))])
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(statistics[name], buffer) for name, buffer in model.named_buffers())


def test_evaluation_does_not_depend_on_how_samples_are_batched() -> None:
    model, inputs, targets = nn.Linear(3, 4), torch.randn(10, 3), torch.arange(10) % 4
    whole = evaluate_batches(model, [(inputs, targets)])
    parts = evaluate_batches(model, zip(inputs.split(3), targets.split(3), strict=True))
    assert parts == pytest.approx(whole)
    assert whole[0] == pytest.approx(nn.functional.cross_entropy(model(inputs), targets).item())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="the loss must be finite, but evaluation gave NaN or infinity"):
        evaluate_batches(nn.Linear(1, 2), [(torch.full((1, 1), torch.nan), torch.tensor([0]))])


def test_learning_rates_warm_up_and_drop() -> None:
    recipe = replace(
        paper_recipe("lenet-300-100"), num_steps=10, warmup_steps=4, lr_milestones=(0.5, 0.8), lr_decay=0.1
    )
    factors = [find_lr_factor(recipe, step) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


# ------------------------------------------------------------------------------------------------------- early stopping


def train_digits(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    workload = load_digits()
    data = replace(workload.data, test_targets=change(workload.data.test_targets))
    recipe = replace(workload.recipe, num_steps=60, evaluation_interval=5, optimizer_arguments={"lr": 0.02})
    subject = WorkloadSubject(replace(workload, data=data, recipe=recipe))
    return subject.train(
        subject.build(0), first_step=0, last_step=60, seed=0, rewind_step=0, keep_rewind_point=lambda: None
    )


def test_the_early_stop_is_the_least_validation_loss_and_the_test_split_chooses_nothing() -> None:
    history = train_digits(lambda targets: targets)
    curve, early = history["curve"], history["early_stop"]
    assert curve["step"] == list(range(5, 61, 5))
    best = min(range(12), key=lambda i: curve["validation_loss"][i])
    assert best < 11, "the learning rate is so high that the last evaluation is not the best"
    assert early["step"] == curve["step"][best]
    assert early["validation_loss"] == curve["validation_loss"][best]
    assert history["end"]["step"] == 60
    other = train_digits(lambda targets: (targets + 1) % 10)
    assert other["curve"] == curve
    assert other["early_stop"]["step"] == early["step"]
    assert other["early_stop"]["test_accuracy"] != early["test_accuracy"]


# ------------------------------------------------------------------------------------------------------ kill and resume

SETTINGS = ["--levels=2", "--controls=2", "--replicates=2", "--steps=40", "--evaluate-every=20"]
# Flushing slowly makes the moments long in which a file is half there.
COMMAND = """
import sys, time
from lottery_tickets._core import files
flush = files.flush_to_disk
files.flush_to_disk = lambda path: (time.sleep(0.03), flush(path))
from unified_model_analysis.cli import main
sys.exit(main(sys.argv[1:]))
"""


def read_all(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


def list_finished(run: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and time of change of every file of a finished training."""
    files = [path for path in run.glob("replicate-*/level-*/*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["imp", "--output", str(run), *SETTINGS, "--workers", "1"]) == 0
    return run


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "a training is there": lambda run: any(run.glob("replicate-*/level-*")),
    "a file is half written": lambda run: any(run.glob("replicate-*/.*.part/.*.part")),
    "many trainings are there": lambda run: len(list(run.glob("replicate-*/level-*"))) >= 8,
}


def list_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 200) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.002)
    return False


def kill_and_check(run: Path, moment: str, num_workers: int, *changes: str) -> None:
    """Starts the command, kills it by SIGKILL when the moment has come, and sees that no worker outlives it."""
    arguments = ["imp", "--output", str(run), *SETTINGS, *changes, "--workers", str(num_workers)]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        finished = list_finished(run)
        try:
            assert wait_until(lambda: MOMENTS[moment](run) or process.poll() is not None)
            assert process.poll() is None, "the command ended before the moment came"
            children = list_children(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert wait_until(lambda: not any(is_alive(child) for child in children), 8), "a worker outlived its parent"
    assert finished.items() <= list_finished(run).items(), "a finished training was written again"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_workers", "moments"),
    [
        (1, ["a training is there", "a file is half written", "many trainings are there"]),
        pytest.param(2, ["many trainings are there"], marks=pytest.mark.long),
    ],
)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(
    tmp_path: Path, uninterrupted: Path, num_workers: int, moments: list[str]
) -> None:
    run = tmp_path / "run"
    for moment in moments:
        kill_and_check(run, moment, num_workers)
    finished = list_finished(run)
    assert len(finished) > 20
    assert main(["imp", "--output", str(run), *SETTINGS, "--workers", "1"]) == 0
    assert finished.items() <= list_finished(run).items(), "a finished training was written again"
    whole = read_all(uninterrupted)
    assert read_all(run).keys() == whole.keys(), "a file is missing or left over"
    assert [name for name, content in read_all(run).items() if content != whole[name]] == []
    assert [check for check in verify_run(run) if check.problem] == []


@pytest.mark.slow
def test_workers_die_with_their_parent_in_mid_training(tmp_path: Path) -> None:
    """Four trainings of 3,000 steps are left when it is killed: half a minute of work that nobody waits for."""
    kill_and_check(tmp_path / "run", "a training is there", 2, "--steps=3000", "--evaluate-every=3000")


def test_a_finished_run_is_only_shown(uninterrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, contents = list_finished(uninterrupted), read_all(uninterrupted)
    assert main(["imp", "--output", str(uninterrupted), *SETTINGS, "--workers", "1"]) == 0
    assert list_finished(uninterrupted) == before
    assert read_all(uninterrupted) == contents
    assert re.search("minus dense, points +verdict", capsys.readouterr().out)


def test_the_run_is_the_experiment_asked_for(uninterrupted: Path) -> None:
    plan = read_json(uninterrupted / "run.json")["settings"]
    results = read_json(uninterrupted / "results.json")
    assert (plan["num_levels"], plan["control_levels"], plan["num_steps"]) == (2, [2], 40)
    assert len(results["trainings"]) == 2 * (3 + 3)
    densities = {row["level"]: row["density"] for row in results["trainings"]}
    assert densities == pytest.approx({0: 1, 1: 0.8, 2: 0.64}, abs=0.01)
    for row in results["trainings"]:
        curve = row["history"]["curve"]
        assert curve["step"] == [20, 40]
        assert row["history"]["early_stop"]["validation_loss"] == min(curve["validation_loss"])


CHANGES = {
    "num_levels is 2 there and 1 here": ["--levels", "1", "--controls", "1"],
    "num_replicates is 2 there and 1 here": ["--replicates", "1"],
    "num_steps is 40 there and 41 here": ["--steps", "41"],
    "evaluation_interval is 20 there and 10 here": ["--evaluate-every", "10"],
    "lr is 0.0012 there and 0.5 here": ["--learning-rate", "0.5"],
    "seed is 42 there and 1 here": ["--seed", "1"],
    "rewind_step is 0 there and 5 here": ["--rewind-step", "5"],
    "data_order is 'same' there and 'fresh' here": ["--data-order", "fresh"],
    "rewinding is 'weights' there": ["--rewinding", "learning_rate"],
}


@pytest.mark.parametrize("message", CHANGES)
def test_other_settings_on_the_same_folder_are_refused_by_name(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str], message: str
) -> None:
    before = read_all(uninterrupted)
    assert main(["imp", "--output", str(uninterrupted), *SETTINGS, *CHANGES[message], "--workers", "1"]) == 2
    assert message in capsys.readouterr().err
    assert read_all(uninterrupted) == before


def test_a_folder_in_use_is_refused(uninterrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive_lock(uninterrupted / ".lock"):
        assert main(["imp", "--output", str(uninterrupted), *SETTINGS, "--workers", "1"]) == 2
    assert "one process at a time" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["thesis.tex", "download.part", ".hidden", ".git/config"])
def test_a_foreign_folder_is_refused_and_nothing_in_it_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    assert main(["imp", "--output", str(tmp_path), *SETTINGS, "--workers", "1"]) == 2
    assert "must be empty or the folder of an experiment, but it holds other files" in capsys.readouterr().err
    assert read_all(tmp_path) == {name: b"years of work"}
    assert not (tmp_path / ".lock").exists()

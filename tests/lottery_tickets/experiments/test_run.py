"""Where replicates run: processes that are not interrupted, or whatever an executor has, to the same bits."""

import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets._core.training import pace
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.run import INTERRUPTIONS, _undisturbed, _worker_processes, run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSource


def read_all(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


class Elsewhere:
    """An executor that is nothing but `submit`: each job is pickled, and runs when it is asked for."""

    def __init__(self) -> None:
        self.jobs: list[Elsewhere.Job] = []

    class Job:
        def __init__(self, pickled: bytes) -> None:
            self.pickled, self.is_cancelled = pickled, False

        def done(self) -> bool:
            return True

        def result(self) -> object:
            function, arguments = pickle.loads(self.pickled)
            return function(*arguments)

        def cancel(self) -> None:
            self.is_cancelled = True

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> "Elsewhere.Job":  # noqa: ANN401 - whatever the function takes
        self.jobs.append(Elsewhere.Job(pickle.dumps((function, arguments))))
        return self.jobs[-1]


def make_plan(num_replicates: int) -> tuple[WorkloadSource, ExperimentPlan]:
    """Returns a plan of two trainings of 20 steps a replicate."""
    source = WorkloadSource("digits", "lenet-300-100")
    recipe = replace(source().workload.recipe, num_steps=20, evaluation_interval=20)
    source = replace(source, recipe=recipe)
    settings: dict[str, Any] = {"subject": source().describe(), "num_levels": 1, "num_steps": 20, "control_levels": ()}
    return source, ExperimentPlan(schedule=PruningSchedule(), **settings, num_replicates=num_replicates)


def test_replicates_run_wherever_an_executor_runs_them(tmp_path: Path) -> None:
    source, plan = make_plan(num_replicates=2)
    executor = Elsewhere()
    elsewhere = run_experiment(ExperimentFolder(tmp_path / "elsewhere", plan), source, executor=executor)
    assert len(executor.jobs) == 2
    assert elsewhere == run_experiment(ExperimentFolder(tmp_path / "here", plan), source)
    assert read_all(tmp_path / "elsewhere") == read_all(tmp_path / "here")
    run_experiment(ExperimentFolder(tmp_path / "elsewhere", plan), source, executor=executor)
    assert len(executor.jobs) == 2, "nothing was missing"


def test_jobs_that_wait_are_cancelled_when_one_fails(tmp_path: Path) -> None:
    source = WorkloadSource("digits", "lenet-300-100")
    plan = ExperimentPlan({"not": "this"}, PruningSchedule(), num_levels=0, num_steps=10**9, num_replicates=2)
    executor = Elsewhere()
    with pytest.raises(ValueError, match="no such data"):
        run_experiment(ExperimentFolder(tmp_path, plan), replace(source, data="no such data"), executor=executor)
    assert [job.is_cancelled for job in executor.jobs] == [True, True]


def read_blocked_signals() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_interruptions_do_not_come_to_workers_which_would_answer_with_a_traceback() -> None:
    """A terminal sends Ctrl-C to them too, and one that was just starting once said where it was."""
    before = read_blocked_signals()
    counts = get_context("spawn").Array("q", 2), get_context("spawn").Array("d", 2)
    with _worker_processes(2, *counts) as pool:
        with _undisturbed():
            jobs = [pool.submit(read_blocked_signals) for _ in range(2)]
        assert read_blocked_signals() == before
        assert all(job.result() >= set(INTERRUPTIONS) for job in jobs)


class Bar:
    """Stands for tqdm: what a bar was begun with, and what it was moved by."""

    made: ClassVar[list["Bar"]] = []

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - tqdm's
        self.settings, self.n, self.moves, self.words = settings, settings["initial"], list[int](), list[str]()
        self.said: list[str] = []
        Bar.made.append(self)

    def update(self, num: int) -> None:
        self.n += num
        self.moves.append(num)

    def set_postfix_str(self, words: str, *, refresh: bool) -> None:
        self.words.append(words)
        assert not refresh

    def write(self, sentence: str, file: object) -> None:
        self.said.append(sentence)
        assert file is not None

    def close(self) -> None:
        self.moves.append(0)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setattr(pace, "tqdm", Bar)
    monkeypatch.setattr(pace, "REFRESH_SECONDS", 0.0)
    Bar.made.clear()
    return Bar.made


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_bar_moves_by_steps_inside_of_trainings_and_begins_where_a_run_goes_on(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: list[Bar]
) -> None:
    cores: list[float | None] = []
    monkeypatch.setattr(pace.Pace, "take", lambda _, _done, _num_at_work, cpu_seconds: cores.append(cpu_seconds))
    for num_replicates, begun in ((2, 0), (2, 80), (3, 80)):
        source, plan = make_plan(num_replicates)
        run_experiment(ExperimentFolder(tmp_path, plan), source, num_workers=num_workers, progress=True)
        bar, num_trainings = bars[-1], 2 * num_replicates
        processes = " in 2 processes" if num_workers == 2 and begun == 0 else ""
        start = (bar.settings["total"], bar.settings["initial"], bar.settings["unit"], bar.settings["disable"])
        assert start == (20 * num_trainings, begun, "step", False)
        assert bar.n == 20 * num_trainings
        assert (cores[-1] or 0.0) > 0 if processes else cores[-1] is None
        assert all(move >= 0 for move in bar.moves)
        steps = 20 * num_trainings
        assert bar.words[-1] == f"{steps} of {steps} steps, {num_trainings} of {num_trainings} trainings"
        there = "; 4 of them are there" if begun else ""
        said = f"{num_trainings} trainings of 20 steps, {num_replicates} replicates{processes}{there}: "
        assert bar.said == ([f"{said}{steps - begun} steps to do"] if steps > begun else [])
    if num_workers == 1:
        assert bars[0].moves.count(1) == 80  # each step by itself


def test_epochs_of_a_caller_are_counted_and_a_trainer_that_makes_no_passes_is_done_when_it_ends(
    tmp_path: Path, bars: list[Bar]
) -> None:
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    for passes, moves in ((True, [1, 1, 1]), (False, [3])):

        def train(model: nn.Module, dataloader: Any, *, epochs: int, passes: bool = passes) -> None:  # noqa: ANN401 - a loader
            for _ in range(epochs):
                for batch in dataloader if passes else data:
                    model(batch[0]).sum().backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.add_(0.01)

        bars.clear()
        compute_iterative_magnitude_pruning(
            nn.Linear(4, 2), data, 0.0, trainer_fn=train, num_epochs=3, run_folder=tmp_path / str(passes), progress=True
        )
        [bar] = bars
        assert bar.settings["unit"] == "epoch"
        assert [move for move in bar.moves if move] == moves


def test_what_is_told_of_the_time_leaves_no_trace(tmp_path: Path, bars: list[Bar]) -> None:
    source, plan = make_plan(num_replicates=2)
    for name in ("told", "silent"):
        folder = ExperimentFolder(tmp_path / name, plan)
        run_experiment(folder, source, progress=name == "told")
    assert [bar.settings["disable"] for bar in bars] == [False, True]
    assert read_all(tmp_path / "told") == read_all(tmp_path / "silent")

"""Where replicates run: processes that are not interrupted, or whatever an executor has, to the same bits."""

import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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


def test_replicates_run_wherever_an_executor_runs_them(tmp_path: Path) -> None:
    source = WorkloadSource("digits", "lenet-300-100")
    recipe = replace(source().workload.recipe, num_steps=20, evaluation_interval=20)
    source = replace(source, recipe=recipe)
    settings: dict[str, Any] = {"subject": source().describe(), "num_levels": 1, "num_steps": 20, "control_levels": ()}
    plan = ExperimentPlan(schedule=PruningSchedule(), **settings, num_replicates=2)
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
    with _worker_processes(2) as pool:
        with _undisturbed():
            jobs = [pool.submit(read_blocked_signals) for _ in range(2)]
        assert read_blocked_signals() == before
        assert all(job.result() >= set(INTERRUPTIONS) for job in jobs)

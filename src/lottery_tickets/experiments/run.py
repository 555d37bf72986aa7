"""The one way to run an experiment: in this process, in worker processes, or wherever an executor runs replicates."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any, Final, Never, Protocol

from tqdm import tqdm

from lottery_tickets._core.folders import Grow
from lottery_tickets.experiments.engine import finish_run, run_replicate
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.growth import grow_plan
from lottery_tickets.experiments.subjects import Subject

POLL_SECONDS: Final = 0.5
INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)


class Job(Protocol):
    """What an executor gives back; a `concurrent.futures.Future` is one."""

    def done(self) -> bool:
        """Returns whether it has ended."""
        ...

    def result(self) -> object:
        """Returns what the function returned, or raises what it raised."""
        ...

    def cancel(self) -> object:
        """Keeps it from starting."""
        ...


class Executor(Protocol):
    """Where replicates run: a `concurrent.futures.Executor`, or a cluster's that has the same `submit`.

    Its workers must see the run folder at the same path.
    """

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> Job:  # noqa: ANN401 - whatever it takes
        """Has the function called elsewhere; function and arguments are pickled."""
        ...


def run_experiment(
    asked: ExperimentFolder,
    make_subject: Callable[[], Subject],
    *,
    num_workers: int = 1,
    executor: Executor | None = None,
    grow: Grow = grow_plan,
    accept_changed_environment: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Runs an experiment in its folder, goes on with it or lets it grow, and returns its results.

    Args:
        asked: The run folder, begun when it does not exist, and the plan; what is there already is not done again.
        make_subject: Builds the subject; called once for each replicate that runs elsewhere, so it must pickle then.
        num_workers: Processes that share the replicates.
        executor: Runs the replicates instead of own processes.
        grow: Joins the plan of the folder with this one.
        accept_changed_environment: Whether to go on where another environment began.
        progress: Whether to show a bar.

    Raises:
        OSError: When a file of the folder cannot be read or written.
        ValueError: When the folder belongs to another experiment, is in use, or holds altered files.
    """
    with asked.opened(grow=grow, accept_changed_environment=accept_changed_environment) as folder:
        trainings = folder.plan.list_all_trainings()
        missing = sorted({training.replicate for training in trainings if not folder.is_finished(training)})
        with tqdm(total=len(trainings), unit="training", disable=not progress) as bar:
            if executor is not None:
                _wait(_submit(executor, folder, make_subject, missing), folder, bar)
            elif num_workers > 1 and len(missing) > 1:
                with _worker_processes(min(num_workers, len(missing))) as pool:
                    with _undisturbed():
                        jobs = _submit(pool, folder, make_subject, missing)
                    _wait(jobs, folder, bar)
            elif missing:
                subject = make_subject()
                for replicate in missing:
                    run_replicate(folder, subject, replicate, after_training=bar.update)
        return finish_run(folder)


def _submit(
    executor: Executor, folder: ExperimentFolder, make_subject: Callable[[], Subject], replicates: list[int]
) -> list[Job]:
    return [executor.submit(_run_replicate_anew, folder, make_subject, replicate) for replicate in replicates]


def _wait(waiting: list[Job], folder: ExperimentFolder, bar: "tqdm[Never]") -> None:
    try:
        while waiting:
            for job in [job for job in waiting if job.done()]:
                job.result()
                waiting.remove(job)
            bar.update(sum(map(folder.is_finished, folder.plan.list_all_trainings())) - bar.n)
            if waiting:
                time.sleep(POLL_SECONDS)
    except BaseException:
        for job in waiting:
            job.cancel()
        raise


@contextlib.contextmanager
def _worker_processes(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Gives worker processes, which are stopped at once when the block raises."""
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            for process in list((pool._processes or {}).values()):  # noqa: SLF001 - the pool offers no way to stop a task
                process.kill()
            raise


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Lets interruptions wait until the block is done, and never come to processes that are started in it.

    These are sent to all processes of a command at once. A worker would only answer with a traceback: whoever started
    it ends it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_replicate_anew(folder: ExperimentFolder, make_subject: Callable[[], Subject], replicate: int) -> None:
    run_replicate(folder, make_subject(), replicate)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it dies, even by SIGKILL, so that no two runs share a folder."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""The one way to run an experiment: in this process, in worker processes, or wherever an executor runs replicates."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, Final

from lottery_tickets._core.folders import Grow
from lottery_tickets._core.loggers import Log, Logger
from lottery_tickets._core.training.steps_done import tell_steps_to, telling_steps_to
from lottery_tickets.experiments.elsewhere.orders import Failure, fill_order, placing_order
from lottery_tickets.experiments.elsewhere.tasks import Executor, Job, run_tasks
from lottery_tickets.experiments.engine import finish_run, run_replicate
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.growth import grow_plan
from lottery_tickets.experiments.news import News
from lottery_tickets.experiments.subjects import Subject

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized, SynchronizedArray

INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)


def run_experiment(
    asked: ExperimentFolder,
    make_subject: Callable[[], Subject],
    *,
    num_workers: int = 1,
    executor: Executor | None = None,
    grow: Grow = grow_plan,
    accept_changed_environment: bool = False,
    progress: bool = False,
    logger: Logger | Iterable[Logger] | None = None,
) -> dict[str, Any]:
    """Runs an experiment in its folder, goes on with it or lets it grow, and returns its results.

    Args:
        asked: The run folder, begun when it does not exist, and the plan; what is there already is not done again.
        make_subject: Builds the subject; called once for each replicate that runs elsewhere, so it must pickle then.
        num_workers: Processes that share the replicates.
        executor: Runs the replicates instead of own processes: a `concurrent.futures.Executor`, a Dask client, or
            anything else with their `submit`. Its workers must see the folder at the same path, and have the same
            environment; each trains on one thread.
        grow: Joins the plan of the folder with this one.
        accept_changed_environment: Whether to go on where another environment began.
        progress: Whether to say what will be done, and show a bar with the time that is left.
        logger: Told the figures of each training that this call computes, when it has ended, by this process: its
            curve, and by level what it ended with.

    Raises:
        OSError: When a file of the folder cannot be read or written, workers do not see it (`FileNotFoundError`), or
            workers die again and again (`ChildProcessError`).
        TypeError: When a logger has no `log`, or what an executor runs cannot be pickled.
        ValueError: When the folder belongs to another experiment, is in use, or holds altered files; or workers have
            another environment.
    """
    log = Log(logger)
    with asked.opened(grow=grow, accept_changed_environment=accept_changed_environment) as folder:
        trainings = folder.plan.list_all_trainings()
        missing = sorted({training.replicate for training in trainings if not folder.is_finished(training)})
        processes = None if executor is not None else num_workers
        with News(folder, log, num_processes=processes, progress=progress) as news:
            if executor is not None and missing:
                with placing_order(folder, make_subject) as order:
                    run_tasks(partial(executor.submit, fill_order, order), folder, missing, news)
            elif num_workers > 1 and len(missing) > 1:
                counts = news.steps_elsewhere, news.seconds_elsewhere
                with _worker_processes(min(num_workers, len(missing)), *counts) as pool:
                    run_tasks(partial(_submit_undisturbed, pool, folder, make_subject), folder, missing, news)
            elif missing:
                subject = make_subject()
                with telling_steps_to(news.count):
                    for replicate in missing:
                        run_replicate(folder, subject, replicate, after_training=news.take)
        return finish_run(folder)


@contextlib.contextmanager
def _worker_processes(
    num_workers: int, steps: "SynchronizedArray[int]", seconds: "SynchronizedArray[float]"
) -> Iterator[ProcessPoolExecutor]:
    """Gives worker processes, each of which counts its steps, and which are stopped at once when the block raises."""
    begun = get_context("spawn").Value("q", 0)
    with ProcessPoolExecutor(
        num_workers, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(steps, seconds, begun)
    ) as pool:
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


def _submit_undisturbed(
    pool: ProcessPoolExecutor, folder: ExperimentFolder, make_subject: Callable[[], Subject], replicate: int
) -> Job:
    with _undisturbed():
        return pool.submit(_run_replicate_anew, folder, make_subject, replicate)


def _run_replicate_anew(
    folder: ExperimentFolder, make_subject: Callable[[], Subject], replicate: int
) -> Failure | None:
    try:
        run_replicate(folder, make_subject(), replicate)
    except Exception as error:  # noqa: BLE001 - of whatever is trained
        return Failure.of(error)
    return None


def _begin_worker(
    steps: "SynchronizedArray[int]", seconds: "SynchronizedArray[float]", begun: "Synchronized[int]"
) -> None:
    _die_with_parent()
    with begun.get_lock():
        place = begun.value % len(steps)
        begun.value += 1
    before = time.process_time()  # of imports

    def count(num: int) -> None:
        with steps.get_lock():
            steps[place] += num
            seconds[place] = time.process_time() - before

    tell_steps_to(count)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it dies, even by SIGKILL, so that no two runs share a folder."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

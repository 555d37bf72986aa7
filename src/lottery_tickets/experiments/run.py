"""The one way to run an experiment: in this process, or with its replicates spread over worker processes."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Final, Never

from tqdm import tqdm

from lottery_tickets.experiments import records
from lottery_tickets.experiments.engine import finish_run, open_run, run_replicate
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.subjects import Subject

POLL_SECONDS: Final = 0.5

logger = logging.getLogger(__name__)


def run_experiment(
    run: Path,
    plan: ExperimentPlan,
    make_subject: Callable[[], Subject],
    *,
    num_workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Runs an experiment in its folder, or goes on with it, and returns its results.

    Args:
        run: The run folder; begun when it does not exist.
        plan: What to run.
        make_subject: Builds the subject; called once in each worker, so it must pickle when there is more than one.
        num_workers: Processes that share the replicates.
        progress: Whether to show a bar.

    Raises:
        ValueError: When the folder belongs to another experiment, is in use, or holds altered files.
    """
    with open_run(run, plan), tqdm(total=len(plan.list_all_trainings()), unit="training", disable=not progress) as bar:
        if num_workers > 1 and plan.num_replicates > 1:
            _run_in_workers(run, plan, make_subject, min(num_workers, plan.num_replicates), bar)
        elif not all(records.is_finished(run, training) for training in plan.list_all_trainings()):
            subject = make_subject()
            for replicate in range(plan.num_replicates):
                run_replicate(run, plan, subject, replicate, after_training=bar.update)
        return finish_run(run, plan)


def _run_in_workers(
    run: Path, plan: ExperimentPlan, make_subject: Callable[[], Subject], num_workers: int, bar: "tqdm[Never]"
) -> None:
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_die_with_parent) as pool:
        waiting: set[Future[None]] = {
            pool.submit(_run_replicate_in_worker, run, plan, make_subject, replicate)
            for replicate in range(plan.num_replicates)
        }
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
                bar.update(sum(records.is_finished(run, training) for training in plan.list_all_trainings()) - bar.n)
                for future in done:
                    future.result()
        except BaseException:
            for process in list((pool._processes or {}).values()):  # noqa: SLF001 - the pool offers no way to stop a task
                process.terminate()
            raise


def _run_replicate_in_worker(
    run: Path, plan: ExperimentPlan, make_subject: Callable[[], Subject], replicate: int
) -> None:
    run_replicate(run, plan, make_subject(), replicate)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it dies, even by SIGKILL, so that no two runs share a folder."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

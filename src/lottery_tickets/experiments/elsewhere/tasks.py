"""Replicates as tasks of an engine: begun, waited for, begun again where a worker died, cancelled where one fails."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

from lottery_tickets.experiments.elsewhere.orders import Failure
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.news import News

POLL_SECONDS: Final = 0.5
MOST_LOST: Final = 3  # workers of one replicate, one after the other, that finish no training
VISIBLE_SECONDS: Final = 90.0  # until what another machine has written is seen here; network disks look anew that often


class Job(Protocol):
    """What an executor gives back; a `concurrent.futures.Future` is one."""

    def done(self) -> bool:
        """Returns whether it has ended."""
        ...

    def result(self) -> Any:  # noqa: ANN401 - of whatever function
        """Returns what the function returned, or raises why it could not be called to its end."""
        ...

    def cancel(self) -> object:
        """Keeps it from starting, or ends it."""
        ...


class Executor(Protocol):
    """Where replicates run: a `concurrent.futures.Executor`, a Dask client, or what else has the same `submit`."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Job:  # noqa: ANN401 - whatever it takes
        """Has the function called elsewhere; function and arguments are pickled."""
        ...


@final
@dataclass(frozen=True)
class _Attempt:
    """A replicate that was given to a worker.

    Attributes:
        job: What the engine gave back.
        num_finished: Trainings of the replicate that were there before.
        num_lost: Workers before it that died without finishing one.
    """

    job: Job
    num_finished: int
    num_lost: int


def run_tasks(submit: Callable[[int], Job], folder: ExperimentFolder, replicates: list[int], news: News) -> None:
    """Has replicates trained elsewhere, and waits.

    Args:
        submit: Gives a replicate to a worker; its job returns a `Failure` where training raised.
        folder: The folder of the run.
        replicates: Those with trainings that are missing.
        news: Shown meanwhile.

    Raises:
        ChildProcessError: When workers of a replicate die again and again, or the engine takes no more tasks.
        FileNotFoundError: When what a worker has written is not seen here.
        Exception: What a training raised; no further one begins then.
    """
    attempts: dict[int, _Attempt] = {}
    try:
        for replicate in replicates:
            attempts[replicate] = _begin(submit, folder, replicate)
        while attempts:
            for replicate, attempt in list(attempts.items()):
                if attempt.job.done():
                    if _settle(folder, replicate, attempt):
                        del attempts[replicate]
                    else:
                        attempts[replicate] = _begin(submit, folder, replicate, attempt)
            news.take()
            if attempts:
                time.sleep(POLL_SECONDS)
    except BaseException:
        for attempt in attempts.values():
            with contextlib.suppress(Exception):  # of an engine that may be gone; what came first is what is to be said
                attempt.job.cancel()
        raise


def _begin(
    submit: Callable[[int], Job], folder: ExperimentFolder, replicate: int, lost: _Attempt | None = None
) -> _Attempt:
    num_finished, num_lost = _count_finished(folder, replicate), 0
    if lost is not None and lost.num_finished == num_finished:
        num_lost = lost.num_lost + 1
    try:
        return _Attempt(submit(replicate), num_finished, num_lost)
    except Exception as error:
        raise ChildProcessError(
            f"the executor must take a task for each replicate, but: {_describe(error)}; look at its workers, and run "
            "the same again, which goes on"
        ) from error


def _settle(folder: ExperimentFolder, replicate: int, attempt: _Attempt) -> bool:
    """Returns whether a job that has ended has done its work, or raises what it raised; else its worker died."""
    try:
        failure = attempt.job.result()
    except Exception as error:
        if attempt.num_lost + 1 < MOST_LOST or _count_finished(folder, replicate) > attempt.num_finished:
            return False
        raise ChildProcessError(
            f"a worker must live until its training ends, but {MOST_LOST} workers of replicate {replicate} died one "
            f"after the other: {_describe(error)}; look at their logs and memory, and run the same again, which goes on"
        ) from error
    if isinstance(failure, Failure):
        failure.raise_here()
    end = time.monotonic() + VISIBLE_SECONDS
    while _count_finished(folder, replicate) < len(folder.plan.list_trainings(replicate)):
        if time.monotonic() > end:
            raise FileNotFoundError(
                f"{folder.path} must hold what workers train, but replicate {replicate} is done and not there; do they "
                "write to the same disk?"
            )
        time.sleep(POLL_SECONDS)
    return True


def _count_finished(folder: ExperimentFolder, replicate: int) -> int:
    return sum(map(folder.is_finished, folder.plan.list_trainings(replicate)))


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")

"""Slurm as an executor, through submitit: a task is a job in its queue."""

import contextlib
import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, final

from lottery_tickets._core.checks import needing_extra

with needing_extra("cluster"):
    import submitit

LOOK_SECONDS: Final = 15.0  # from one look at the queue to the next, for all jobs
DAY_MINUTES: Final = 24 * 60
MOST_REQUEUES: Final = 20  # of one job that its time limit stops: submitit puts it into the queue again


@final
class SlurmExecutor:
    """Runs each task as a job of Slurm; to be handed to what takes an `executor=`.

    A job that is preempted, or whose time is over, goes into the queue again by itself and goes on after the last
    training that it finished. How far jobs are is asked of `squeue`, which every Slurm answers, with accounting or
    without.

    Args:
        folder: Where submitit keeps its scripts and the output of jobs; on a disk that all nodes share.
        options: As of `submitit.SlurmExecutor.update_parameters`, which are those of sbatch: `partition`, `time` in
            minutes (a day when not given), `mem`, `cpus_per_task`, `gpus_per_node`, `additional_parameters`.

    Raises:
        FileNotFoundError: When there is no Slurm on this machine.
        ValueError: When an option is not known.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:  # noqa: ANN401 - as sbatch has them
        if missing := [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]:
            raise FileNotFoundError(
                f"Slurm's commands must be found, but there is no {', '.join(missing)}; use a machine of its cluster"
            )
        self._submitter = submitit.SlurmExecutor(folder, max_num_timeout=MOST_REQUEUES)
        self._submitter.update_parameters(
            **{"job_name": "lottery-tickets", "time": DAY_MINUTES, "wckey": None, **options}
        )
        self._queue = _Queue()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "SlurmJob":  # noqa: ANN401 - as it is
        """Puts a call of a function into the queue.

        Args:
            function: What is called on a node.
            arguments: Of the function.
        """
        with _outside_of_jobs():
            return SlurmJob(self._submitter.submit(_Task(function), *arguments), self._queue)


@final
class SlurmJob:
    """A job in the queue.

    Args:
        job: As submitit has it.
        queue: Where its state is looked up.
    """

    def __init__(self, job: "submitit.Job[Any]", queue: "_Queue") -> None:
        self._job, self._queue, self._submitted = job, queue, time.monotonic()

    def done(self) -> bool:
        """Returns whether it has ended: with a result, or killed."""
        return self._job.paths.result_pickle.exists() or self._queue.lacks(self._job.job_id, self._submitted)

    def result(self) -> Any:  # noqa: ANN401 - of whatever function
        """Returns what the function returned.

        Raises:
            ChildProcessError: When the job ended without a result.
        """
        end = time.monotonic() + LOOK_SECONDS
        while not self._job.paths.result_pickle.exists():  # another machine has written it, perhaps just now
            if time.monotonic() > end:
                raise ChildProcessError(
                    f"Slurm's job {self._job.job_id} must end with a result, but did not; see {self._job.paths.stderr}"
                )
            time.sleep(1)
        return self._job.result()

    def cancel(self) -> None:
        """Takes it out of the queue, or ends it."""
        self._job.cancel(check=False)


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hides what Slurm tells a job of itself, if this is one: what is submitted meanwhile would take it over."""
    configuration = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if configuration is not None:
            os.environ["SLURM_CONF"] = configuration
        yield


class _Task:
    """A function that submitit may put into the queue again with the same arguments, where its job had to stop."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - of whatever function
        return self._function(*arguments)

    def checkpoint(self, *arguments: Any) -> "submitit.helpers.DelayedSubmission":  # noqa: ANN401 - as above
        return submitit.helpers.DelayedSubmission(self, *arguments)


class _Queue:
    """Which jobs of this user are in the queue, looked up for all at once."""

    def __init__(self) -> None:
        self._looked = float("-inf")
        self._ids: frozenset[str] = frozenset()

    def lacks(self, job_id: str, submitted: float) -> bool:
        """Returns whether a job has been looked for since it was submitted, and was not there."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            command = ["squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}"]
            with contextlib.suppress(subprocess.CalledProcessError):  # it may be restarted; jobs are as they were
                listed = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - of Slurm
                self._looked, self._ids = now, frozenset(listed.stdout.split())
        return self._looked > submitted and job_id not in self._ids

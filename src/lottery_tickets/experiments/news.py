"""What has been trained since the last look: shown by a bar of steps with the time that is left, and told to a log."""

from multiprocessing import get_context
from typing import TYPE_CHECKING, Self, final

from lottery_tickets._core.loggers import Log
from lottery_tickets._core.training.pace import StepsBar, share_out
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.results import tell_training

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray


@final
class News:
    """What has been trained since the last look. Of processes that train one model the first shows and tells it.

    Steps are counted while a training runs; when it has ended, all of its steps are done, counted or not. Those that
    were done before this call do not count for its speed, and so not for the time that is left.

    Args:
        folder: Of the run.
        log: Told the figures of each training that has ended.
        num_processes: That share the replicates; None where the workers of an executor do, and all replicates are
            taken to be at work.
        progress: Whether to show anything.
    """

    def __init__(self, folder: ExperimentFolder, log: Log, *, num_processes: int | None, progress: bool) -> None:
        self._folder, self._log = folder, log
        self._speaks = folder.together.place == 0
        trainings = folder.plan.list_all_trainings()
        self._waiting = [training for training in trainings if not folder.is_finished(training)]
        self._num_trainings, self._total = len(trainings), sum(map(self._count_steps, trainings))
        self._before = self._ended = self._total - sum(map(self._count_steps, self._waiting))
        self._counted = 0
        self._unit = "step" if "recipe" in folder.plan.subject else "epoch"
        self._left = self._list_left()
        self._is_elsewhere = num_processes is None
        self._num_processes = max(1, min(num_processes or len(self._left), len(self._left)))
        self.steps_elsewhere: SynchronizedArray[int] = get_context("spawn").Array("q", self._num_processes)
        self.seconds_elsewhere: SynchronizedArray[float] = get_context("spawn").Array("d", self._num_processes)
        self._bar = StepsBar(
            self._total,
            before=self._before,
            unit=self._unit,
            num_processes=self._num_processes,
            shown=progress and self._speaks,
        )

    def __enter__(self) -> Self:
        plan, there = self._folder.plan, self._num_trainings - len(self._waiting)
        processes = f" in {self._num_processes} processes" if self._num_processes > 1 else ""
        processes = " as tasks of an executor" if self._is_elsewhere else processes
        if self._waiting:
            self._bar.say(
                f"{self._num_trainings} trainings of {plan.num_steps:,} {self._unit}s, {plan.num_replicates} "
                f"replicates{processes}{f'; {there} of them are there' if there else ''}: "
                f"{self._total - self._before:,} {self._unit}s to do"
            )
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def count(self, num: int) -> None:
        """Takes steps that were done in this process."""
        self._counted += num
        self._show()

    def take(self) -> None:
        """Looks for trainings that have ended."""
        ended = [training for training in self._waiting if self._folder.is_finished(training)]
        self._waiting = [training for training in self._waiting if training not in ended]
        self._ended += sum(map(self._count_steps, ended))
        self._left = self._list_left()
        self._show()
        if self._log:
            for training in ended:
                record = self._folder.load_record(training)
                if self._speaks:
                    tell_training(self._log, training, record)

    def _show(self) -> None:
        elsewhere = self.steps_elsewhere[:]  # by worker process, of which some are at work before others
        done = min(self._total, max(self._ended, self._before + self._counted + sum(elsewhere)))
        begun = sum(steps > 0 for steps in elsewhere) or self._num_processes
        self._bar.show(
            done,
            left=lambda: self._find_left(done),
            num_at_work=max(1, min(begun, len(self._left))),
            cpu_seconds=sum(self.seconds_elsewhere[:]) if any(elsewhere) else None,
            note=f"{self._num_trainings - len(self._waiting)} of {self._num_trainings} trainings",
        )

    def _list_left(self) -> list[float]:
        """Returns the steps of the trainings that have not ended, by replicate."""
        left: dict[int, float] = {}
        for training in self._waiting:
            left[training.replicate] = left.get(training.replicate, 0.0) + self._count_steps(training)
        return list(left.values())

    def _find_left(self, done: int) -> list[float]:
        """Returns the steps that are left, by process; those at work are taken for equally far."""
        left = list(self._left)
        num_at_work = max(1, min(self._num_processes, len(left)))
        begun = (done - self._ended) / num_at_work  # of each training that is at work
        left[:num_at_work] = [max(0.0, steps - begun) for steps in left[:num_at_work]]
        return share_out(left, num_at_work)

    def _count_steps(self, training: Training) -> int:
        return training.last_step(self._folder.plan) - training.first_step(self._folder.plan)

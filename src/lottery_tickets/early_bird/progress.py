"""How far an early-bird run is, of the training that is allowed, and how long that takes at most."""

from typing import Self, final

from lottery_tickets._core.training.pace import StepsBar
from lottery_tickets.early_bird.trainers import Trainer


@final
class EarlyBirdBar:
    """A bar over all that may be trained, made when the trainer stands where the run goes on.

    Args:
        trainer: Of the run.
        limit: Where training ends at the latest, in what the trainer counts.
        progress: Whether to show anything.
    """

    def __init__(self, trainer: Trainer, limit: int, *, progress: bool) -> None:
        described = trainer.describe()
        an_epoch = 1 if described["counts"] == "steps" or trainer.num_steps is None else described["batches_an_epoch"]
        unit = "epoch" if trainer.num_steps is None else "step"
        self._trainer = trainer
        self._total: int | None = None if an_epoch is None else limit * an_epoch
        self._done = trainer.num_steps or trainer.position
        self._bar = StepsBar(self._total, before=self._done, unit=unit, is_limit=True, shown=progress)
        if self._total is not None and self._done < self._total:
            there = f"; {self._done:,} are done" if self._done else ""
            self._bar.say(f"at most {self._total:,} {unit}s, until the ticket has converged{there}")

    def count(self, num: int) -> None:
        """Takes steps as they are done."""
        if self._trainer.num_steps is not None:  # of somebody else's trainer epochs are counted, after each stretch
            self._done += num
            self._show("")

    def take(self, num_checks: int) -> None:
        """Takes a check that was made.

        Args:
            num_checks: So far.
        """
        self._done = self._trainer.num_steps or self._trainer.position
        self._show(f"{num_checks} checks")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _show(self, note: str) -> None:
        left = 0 if self._total is None else self._total - self._done
        self._bar.show(self._done, left=lambda: [float(left)], note=note)

"""At which steps something is looked at: every n, at given steps, or ever more rarely."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, final

from lottery_tickets._core.checks import check_count

CheckSteps = int | Sequence[int] | Literal["log"]


@final
class CheckTimes:
    """The steps of checks, in ascending order.

    `steps` holds what was asked for.

    Args:
        steps: A number n (every n steps), the steps themselves, or "log": 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on.

    Raises:
        TypeError: When it is something else.
        ValueError: When a step is less than 1 or none is given.
    """

    def __init__(self, steps: object) -> None:
        self.steps = list(steps) if isinstance(steps, Sequence) and not isinstance(steps, str) else steps
        self._every: int | None = None
        self._given: list[int] | None = None
        if isinstance(steps, str):
            if steps != "log":
                raise ValueError(f"check_steps must be a number, a sequence of steps or 'log', got {steps!r}")
        elif isinstance(steps, Sequence):
            self._given = sorted({check_count("check_steps", step, "integers of at least 1") for step in steps})
            if not self._given:
                raise ValueError("check_steps must hold at least one step, got none")
        else:
            self._every = check_count("check_steps", steps, "an integer of at least 1, a sequence of them, or 'log'")

    def after(self, step: int) -> int | None:
        """Returns the first check after a step; None when there is no further one."""
        if self._every is not None:
            return (step // self._every + 1) * self._every
        if self._given is not None:
            position = bisect_right(self._given, step)
            return self._given[position] if position < len(self._given) else None
        power = 1 << max(0, step).bit_length()  # the first power of two above the step
        between = power // 2 + power // 4  # and what lies halfway to it
        return between if power >= 4 and step < between else power  # noqa: PLR2004 - 1 and 2 have nothing between

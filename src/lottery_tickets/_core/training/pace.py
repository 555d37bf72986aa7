"""How fast steps are done, and how long the rest takes: told from the steps themselves, so nothing is tried out."""

import heapq
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, final

from tqdm import tqdm

SETTLED_SECONDS: Final = 2.0  # of steps, before anything is foretold from them,
SETTLED_STEPS: Final = 5  # and so many, of which the first few are slower,
LONGEST_SECONDS: Final = 30.0  # or so long, where a step takes long
LONG_SECONDS: Final = 10.0  # a command that takes less is not worth a sentence
SHORTEST_MEMORY: Final = 10.0  # seconds after which a step counts a third, at least;
MEMORY: Final = 0.2  # later this share of all the time
REFRESH_SECONDS: Final = 0.1
MINUTE, HOUR, DAY = 60, 3600, 86400
FORM: Final = "{percentage:3.0f}%|{bar}| {elapsed}{postfix}"


@final
class Pace:
    """Seconds that a process takes for a step, over all that are at work, of late: what is long ago counts less.

    Args:
        clock: Gives seconds.

    Examples:
        >>> times = iter([10.0, 11.0, 12.0])
        >>> pace = Pace(lambda: next(times))
        >>> for done in (5, 9, 13):  # the first are only where counting begins
        ...     pace.take(done, num_at_work=2)
        >>> pace.seconds_a_step, pace.num_measured
        (0.5, 8)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last: float | None = None
        self._done = self.num_measured = 0
        self.seconds = 0.0  # since counting began, by this clock
        self._steps_of_late = self._seconds_of_late = 0.0  # the latter of all processes together

    def take(self, done: int, num_at_work: int) -> None:
        """Takes how many steps are done by now.

        Args:
            done: By all processes, since this call began.
            num_at_work: Processes that were at work since the last time.
        """
        now = self._clock()
        if self._last is None:
            if done > 0:  # what comes before the first step is no step
                self._last, self._done = now, done
            return
        seconds, steps = now - self._last, done - self._done
        kept = math.exp(-seconds / max(SHORTEST_MEMORY, MEMORY * self.seconds))
        self._seconds_of_late = kept * self._seconds_of_late + seconds * num_at_work
        self._steps_of_late = kept * self._steps_of_late + steps
        self.seconds, self.num_measured = self.seconds + seconds, self.num_measured + steps
        self._last, self._done = now, done

    @property
    def is_settled(self) -> bool:
        """Whether enough is measured to tell from it what is to come."""
        enough = self.num_measured >= SETTLED_STEPS or (self.num_measured > 0 and self.seconds >= LONGEST_SECONDS)
        return enough and self.seconds >= SETTLED_SECONDS

    @property
    def seconds_a_step(self) -> float | None:
        """Of one process; None before any is known."""
        return self._seconds_of_late / self._steps_of_late if self._steps_of_late > 0 else None


@final
class StepsBar:
    """A bar of steps on the error stream, with how long the rest takes; says so in a sentence when that is long.

    Args:
        total: Steps in all; None when that cannot be known.
        before: Of these, done before this call.
        unit: Of steps.
        num_processes: That share them at most.
        is_limit: Whether there may be fewer steps than these.
        shown: Whether to show anything.
    """

    def __init__(
        self,
        total: int | None,
        *,
        before: int = 0,
        unit: str = "step",
        num_processes: int = 1,
        is_limit: bool = False,
        shown: bool = True,
    ) -> None:
        self._total, self._before, self._unit, self._num_processes = total, before, unit, num_processes
        self._how = "at most" if is_limit else "about"
        self._pace, self._shown_at, self._is_foretold, self._shown = Pace(), 0.0, False, shown
        self._bar: tqdm[Any] = tqdm(
            total=total, initial=before, bar_format=FORM if total else None, unit=unit, disable=not shown
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def say(self, sentence: str) -> None:
        """Says something above the bar."""
        if self._shown:
            self._bar.write(sentence, file=sys.stderr)

    def show(self, done: int, *, left: Callable[[], float], num_at_work: int = 1, note: str = "") -> None:
        """Shows how far it is.

        Args:
            done: Steps, with those before this call.
            left: Gives the steps that are left to the process that ends last.
            num_at_work: Processes at work since the last time.
            note: Said beside the bar.
        """
        now = time.perf_counter()
        if not self._shown or (now - self._shown_at < REFRESH_SECONDS and done != self._total):
            return
        self._shown_at = now
        self._pace.take(done - self._before, num_at_work)
        words = [f"{done:,.0f} of {self._total:,} {self._unit}s"] if self._total else []
        words += [note] if note else []
        each = self._pace.seconds_a_step
        if each is not None and self._pace.is_settled and self._total and done < self._total:
            seconds = each * left()
            words.append(f"{self._how} {show_seconds(seconds)} left")
            self._foretell(seconds, each)
        self._bar.set_postfix_str(", ".join(words), refresh=False)
        self._bar.update(done - self._bar.n)

    def _foretell(self, seconds: float, each: float) -> None:
        is_new, self._is_foretold = not self._is_foretold, True
        if is_new and seconds >= LONG_SECONDS:
            where = "" if self._num_processes == 1 else f" in each of {self._num_processes} processes"
            self.say(
                f"this takes {self._how} {show_seconds(seconds)}: {each:.3g} s a {self._unit}{where}, by the first "
                f"{self._pace.num_measured:,.0f}"
            )


def find_longest(steps: Sequence[float], num_processes: int) -> float:
    """Returns the steps of the process that ends last, where each takes the next share as soon as it is free.

    Args:
        steps: Of each share, in the order in which they are taken.
        num_processes: That share them.

    Examples:
        >>> find_longest([10.0, 10.0, 10.0], 2)
        20.0
    """
    ends = [0.0] * max(1, num_processes)
    for one in steps:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def show_seconds(seconds: float) -> str:
    """Returns a duration in words.

    Examples:
        >>> [show_seconds(seconds) for seconds in (0.4, 50.0, 150.0, 5400.0, 2e5)]
        ['1 s', '50 s', '2.5 min', '1.5 h', '2.3 days']
    """
    if seconds < MINUTE:
        return f"{max(seconds, 1.0):.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.2g} min"
    return f"{seconds / HOUR:.2g} h" if seconds < DAY else f"{seconds / DAY:.2g} days"

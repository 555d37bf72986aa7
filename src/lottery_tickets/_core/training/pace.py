"""How fast steps are done, and how long the rest takes: told from the steps themselves, so nothing is tried out."""

import heapq
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """Seconds that a process takes for a step, by how many are at work, of late: what is long ago counts less.

    Args:
        clock: Gives seconds.

    Examples:
        >>> times = iter([10.0, 11.0, 12.0])
        >>> pace = Pace(lambda: next(times))
        >>> for done in (5, 9, 13):  # the first are only where counting begins
        ...     pace.take(done, num_at_work=2)
        >>> pace.find_seconds_a_step(2), pace.num_measured
        (0.5, 8)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last: float | None = None
        self._done = self.num_measured = 0
        self._cpu_seconds = 0.0
        self.seconds = 0.0  # since counting began, by this clock
        self._of_late: dict[int, _Sums] = {}  # by processes at work

    def take(self, done: int, num_at_work: int, cpu_seconds: float | None = None) -> None:
        """Takes how many steps are done by now.

        Args:
            done: By all processes, since this call began.
            num_at_work: Processes that were at work since the last time.
            cpu_seconds: That they had of the cores together, since this call began; None where that is not known.
        """
        now, had = self._clock(), 0.0 if cpu_seconds is None else cpu_seconds
        if self._last is None:
            if done > 0:  # what comes before the first step is no step
                self._last, self._done, self._cpu_seconds = now, done, had
            return
        seconds, steps = now - self._last, done - self._done
        if steps < max(
            1, num_at_work
        ):  # processes end their steps together: the first of them is no more than its share
            return
        kept = math.exp(-seconds / max(SHORTEST_MEMORY, MEMORY * self.seconds))
        cores = had - self._cpu_seconds if cpu_seconds is not None else seconds * num_at_work
        sums = self._of_late.setdefault(num_at_work, _Sums())
        sums.seconds = kept * sums.seconds + seconds * num_at_work
        sums.steps, sums.cpu_seconds = kept * sums.steps + steps, kept * sums.cpu_seconds + cores
        self.seconds, self.num_measured = self.seconds + seconds, self.num_measured + steps
        self._last, self._done, self._cpu_seconds = now, done, had

    @property
    def is_settled(self) -> bool:
        """Whether enough is measured to tell from it what is to come."""
        enough = self.num_measured >= SETTLED_STEPS or (self.num_measured > 0 and self.seconds >= LONGEST_SECONDS)
        return enough and self.seconds >= SETTLED_SECONDS

    def find_seconds_a_step(self, num_at_work: int) -> float | None:
        """Returns those of one process; None before any is known.

        Where so many have not been at work for long, it is told from others: what those have of the cores together,
        these have too, but no more than a core each.

        Args:
            num_at_work: Processes that are at work.
        """
        known = {num: sums for num, sums in self._of_late.items() if sums.steps > 0}
        settled = {num: sums for num, sums in known.items() if sums.is_settled(num)} or known
        if not settled:
            return None
        num = min(settled, key=lambda num: abs(num - num_at_work))
        sums = settled[num]
        share = min(1.0, sums.cpu_seconds / sums.seconds)  # of a core, that each has
        faster = min(1.0, share * num / num_at_work) / share if share > 0 else 1.0
        return sums.seconds / sums.steps / faster


@dataclass
class _Sums:
    """What was done while so many processes were at work; seconds of all of them together, on the wall and of cores."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: float = 0.0

    def is_settled(self, num_at_work: int) -> bool:
        """Whether it tells what is to come."""
        return self.steps >= SETTLED_STEPS and self.seconds >= SETTLED_SECONDS * num_at_work


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

    def show(
        self,
        done: int,
        *,
        left: Callable[[], Sequence[float]],
        num_at_work: int = 1,
        cpu_seconds: float | None = None,
        note: str = "",
    ) -> None:
        """Shows how far it is.

        Args:
            done: Steps, with those before this call.
            left: Gives the steps that are left, by process.
            num_at_work: Processes at work since the last time.
            cpu_seconds: That these had of the cores together, since this call began; None where that is not known.
            note: Said beside the bar.
        """
        now = time.perf_counter()
        if not self._shown or (now - self._shown_at < REFRESH_SECONDS and done != self._total):
            return
        self._shown_at = now
        self._pace.take(done - self._before, num_at_work, cpu_seconds)
        words = [f"{done:,.0f} of {self._total:,} {self._unit}s"] if self._total else []
        words += [note] if note else []
        each = self._pace.find_seconds_a_step(num_at_work)
        if each is not None and self._pace.is_settled and self._total and done < self._total:
            seconds = self._find_seconds_left(left())
            words.append(f"{self._how} {show_seconds(seconds)} left")
            self._foretell(seconds, each)
        self._bar.set_postfix_str(", ".join(words), refresh=False)
        self._bar.update(done - self._bar.n)

    def _find_seconds_left(self, left: Sequence[float]) -> float:
        """Adds up over the times when a process ends: those that go on are fewer, each at another pace."""
        seconds = before = 0.0
        for place, steps in enumerate(sorted(left)):
            seconds += (steps - before) * (self._pace.find_seconds_a_step(len(left) - place) or 0.0)
            before = steps
        return seconds

    def _foretell(self, seconds: float, each: float) -> None:
        is_new, self._is_foretold = not self._is_foretold, True
        if is_new and seconds >= LONG_SECONDS:
            where = "" if self._num_processes == 1 else f" in each of {self._num_processes} processes"
            self.say(
                f"this takes {self._how} {show_seconds(seconds)}: {each:.3g} s a {self._unit}{where}, by the first "
                f"{self._pace.num_measured:,.0f}"
            )


def share_out(steps: Sequence[float], num_processes: int) -> list[float]:
    """Returns the steps of each process, where each takes the next share as soon as it is free.

    Args:
        steps: Of each share, in the order in which they are taken.
        num_processes: That share them.

    Examples:
        >>> sorted(share_out([10.0, 10.0, 10.0], 2))
        [10.0, 20.0]
    """
    ends = [0.0] * max(1, num_processes)
    for one in steps:
        heapq.heapreplace(ends, ends[0] + one)
    return ends


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

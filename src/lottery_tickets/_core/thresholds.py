"""The exact k-th largest of integers that are only counted: a bracket of values is narrowed to one, pass by pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Bracket(NamedTuple):
    """The values from lo to hi, in bins of 1 << shift values each: value v is in bin (v - lo) >> shift."""

    lo: int
    hi: int
    shift: int = 0

    @property
    def num_bins(self) -> int:
        """How many bins there are."""
        return ((self.hi - self.lo) >> self.shift) + 1


Counters = NDArray[np.signedinteger]
# Returns how many values exceed the bracket, and how many lie in each of its bins.
Count = Callable[[Bracket], tuple[int, Counters]]


@dataclass(frozen=True)
class Threshold:
    """The k-th largest value, how many exceed it, and how many are equal to it."""

    value: int
    num_above: int
    num_equal: int


def find_kth_largest(
    count: Count, k: int, *, least: int, greatest: int, num_bins: int, guess: tuple[int, int] | None = None
) -> Threshold:
    """Returns the k-th largest of integers that only `count` sees.

    Non-negative floats sort like their bit patterns, so this is the exact k-th magnitude of any number of weights, with
    `num_bins` counters as memory: one pass for a good guess, two for float32 without one.

    Args:
        count: Counts in one pass over the integers, those above a bracket and those in each bin of it.
        k: The rank, from 1 (the largest) to the number of integers in [least, greatest].
        least: No integer counted is less.
        greatest: No integer counted is greater.
        num_bins: The most bins that `count` has.
        guess: A bracket to try first. A wrong guess costs a pass and never the result.

    Raises:
        RuntimeError: When counts of one pass contradict those of another, as of integers that change meanwhile.

    Examples:
        >>> values = np.array([7, 3, 3, 1, 0])
        >>> def count(bracket):
        ...     inside = values[(values >= bracket.lo) & (values <= bracket.hi)]
        ...     bins = np.bincount((inside - bracket.lo) >> bracket.shift, minlength=bracket.num_bins)
        ...     return int((values > bracket.hi).sum()), bins
        >>> find_kth_largest(count, 2, least=0, greatest=255, num_bins=2)
        Threshold(value=3, num_above=1, num_equal=2)
    """
    lo, hi = guess if guess is not None else (least, greatest)
    # The value lies in [lo, hi], unless the guess was wrong: then one side of the guess is the next bracket.
    # After a wrong guess and the other side of it, each pass halves the bracket at least.
    for _ in range(2 + (greatest - least).bit_length()):
        if lo > hi:
            break
        shift = _least_shift(hi - lo, num_bins)
        above, bins = count(Bracket(lo, hi, shift))
        reached = above + bins[::-1].cumsum(dtype=np.int64)
        if k <= above:
            lo, hi = hi + 1, greatest
        elif k > reached[-1]:
            lo, hi = least, lo - 1
        else:
            from_top = int(np.searchsorted(reached, k))
            index = len(bins) - 1 - from_top
            num_equal = int(bins[index])
            lo += index << shift
            hi = min(hi, lo + (1 << shift) - 1)
            if shift == 0:
                return Threshold(lo, int(reached[from_top]) - num_equal, num_equal)
    raise RuntimeError(f"the counts of all passes must agree, but none holds the {k}-th largest; did values change?")


def _least_shift(width: int, num_bins: int) -> int:
    shift = max(0, width.bit_length() - num_bins.bit_length())
    while width >> shift >= num_bins:
        shift += 1
    return shift

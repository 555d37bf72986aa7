"""Tests on differences paired by replicate: is their mean, or median, above a bound. Arrays in, arrays out."""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, final

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Test = Literal["t", "sign"]  # on the mean, where differences are near to normal; on the median, whatever they are

FEWEST: Final = 2  # differences, to tell how far they spread
ROUNDING: Final = 1e-12  # of the largest value: differences that spread less are equal
LARGEST_SHIFT: Final = 1e6  # standard errors; scipy's noncentral t gives NaN far beyond


@final
@dataclass(frozen=True)
class Differences:
    """Paired differences, and what they come to; arrays of one shape, which `values` has with a further axis.

    Attributes:
        mean: Their means; 0 where there is none.
        std: Their sample standard deviations; exactly 0 where all are equal up to rounding, or fewer than 2.
        num: How many there are.
        rounding: Size below which a difference is rounding.
        values: The differences; NaN fills up where there are fewer than elsewhere.
    """

    mean: Floats
    std: Floats
    num: npt.NDArray[np.int64]
    rounding: Floats
    values: Floats

    def negate(self) -> "Differences":
        """Returns the differences with the other sign."""
        return replace(self, mean=-self.mean, values=-self.values)


def summarise_differences(values: npt.ArrayLike, reference: npt.ArrayLike) -> Differences:
    """Returns mean, spread and number of values minus reference over the last axis.

    Args:
        values: Finite numbers, shape (..., n): one value a replicate. n may be 0.
        reference: Those of the same replicates, a shape that broadcasts.

    Examples:
        >>> found = summarise_differences([0.5, 0.75, 1.0], [0.5, 0.5, 0.5])
        >>> float(found.mean), float(found.std), int(found.num)
        (0.25, 0.25, 3)
    """
    first, second = np.broadcast_arrays(np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64))
    differences, num = first - second, first.shape[-1]
    largest = np.maximum(np.abs(first).max(axis=-1, initial=0), np.abs(second).max(axis=-1, initial=0))
    rounding = ROUNDING * largest
    mean = differences.mean(axis=-1) if num else np.zeros(first.shape[:-1])
    std = differences.std(axis=-1, ddof=1) if num >= FEWEST else np.zeros(first.shape[:-1])
    std = np.where(std > rounding, std, 0.0)
    return Differences(mean, std, np.full(first.shape[:-1], num), rounding, differences)


def stack_differences(parts: list[Differences]) -> Differences:
    """Returns differences of a further, last axis, one entry a part; parts may differ in number."""

    def stack(name: str) -> npt.NDArray[Any]:
        return np.stack([getattr(part, name) for part in parts], axis=-1)

    most = max(part.values.shape[-1] for part in parts)
    filled = [_fill_up(part.values, most) for part in parts]
    return Differences(stack("mean"), stack("std"), stack("num"), stack("rounding"), np.stack(filled, axis=-2))


def _fill_up(values: Floats, num: int) -> Floats:
    missing = np.full((*values.shape[:-1], num - values.shape[-1]), np.nan)
    return np.concatenate([values, missing], axis=-1)


def compute_p_above(differences: Differences, bound: float, test: Test = "t") -> Floats:
    """Returns the p values of "the true mean, or median, is at most `bound`": small where it lies above.

    "t" is Student's one-sided t test on the mean. It has no meaning where all differences are equal; there it is the
    sign test: n of n above the bound have probability 0.5**n at most when the median is at or below it. Fewer than 2
    differences tell nothing: p = 1.

    "sign" is the sign test on the median (Arbuthnott 1710; Lehmann, Nonparametrics, section 4.2). Its p value is the
    chance that so many of the differences lie above, were each as likely to lie on either side. That holds for every
    distribution; a difference on the bound counts against.

    Args:
        differences: From `summarise_differences`.
        bound: In the units of the differences.
        test: Which.
    """
    if test == "sign":
        num_above = (differences.values - bound > differences.rounding[..., None]).sum(axis=-1)
        by_count = stats.binom.sf(num_above - 1, differences.num, 0.5)
        return np.where(differences.num < FEWEST, 1.0, by_count)
    distance = differences.mean - bound
    spread = differences.std > 0
    standard_error = np.where(spread, differences.std, 1.0) / np.sqrt(np.maximum(differences.num, 1))
    by_t = stats.t.sf(distance / standard_error, np.maximum(differences.num - 1, 1))
    by_sign = np.where(distance > differences.rounding, 0.5**differences.num, 1.0)
    return np.where(differences.num < FEWEST, 1.0, np.where(spread, by_t, by_sign))


def compute_p_below(differences: Differences, bound: float, test: Test = "t") -> Floats:
    """Returns the p values of "the true mean, or median, is at least `bound`": small where it lies below.

    Args:
        differences: From `summarise_differences`.
        bound: In the units of the differences.
        test: As in `compute_p_above`.
    """
    return compute_p_above(differences.negate(), -bound, test)


def compute_p_apart(differences: Differences) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Returns p values of "one normal distribution gave all", small where one stands apart, and the place of that one.

    Grubbs' test, two-sided (Grubbs 1969, Technometrics 11): the largest distance to the mean in standard deviations.
    p = 1 with fewer than 3 differences or without spread.

    Args:
        differences: From `summarise_differences`.
    """
    distances = np.nan_to_num(np.abs(differences.values - differences.mean[..., None]))
    place = distances.argmax(axis=-1) if distances.shape[-1] else np.zeros(differences.num.shape, dtype=np.int64)
    num, spread = differences.num, differences.std > 0
    largest = distances.max(axis=-1, initial=0) / np.where(spread, differences.std, 1.0)
    room = np.maximum((num - 1.0) ** 2 - num * largest**2, ROUNDING)  # 0 where all others are equal
    t = largest * np.sqrt(num * np.maximum(num - 2, 0) / room)
    p_values = np.minimum(1.0, 2 * num * stats.t.sf(t, np.maximum(num - 2, 1)))
    return np.where(spread & (num > FEWEST), p_values, 1.0), place


def adjust_holm(p_values: npt.ArrayLike) -> Floats:
    """Returns p values corrected for their number, over the last axis: Holm's step-down method (Holm 1979).

    Those at most alpha are rejected; then the chance to reject any true hypothesis is at most alpha, whatever the
    dependence between the tests.

    Args:
        p_values: In [0, 1], shape (..., number of tests).

    Examples:
        >>> adjust_holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, axis=-1, kind="stable")
    factors = np.arange(values.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(values, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def compute_power(distance: float, std: float, num: int, alpha: float) -> float:
    """Returns the chance that the test of `compute_p_above` gives p <= alpha.

    Args:
        distance: True mean minus bound.
        std: True standard deviation of the differences; 0 is the sign test.
        num: Differences.
        alpha: In (0, 1).
    """
    if num < FEWEST or distance <= 0:
        return 0.0
    if std == 0:
        return float(0.5**num <= alpha)
    shift = min(distance / std * math.sqrt(num), LARGEST_SHIFT)
    return float(stats.nct.sf(stats.t.isf(alpha, num - 1), num - 1, shift))


def count_replicates(distance: float, std: float, *, alpha: float, power: float, most: int) -> int | None:
    """Returns the smallest number of replicates for which a t test decides with the given chance; None beyond most.

    Args:
        distance: True mean minus bound.
        std: True standard deviation of the differences.
        alpha: Level of the one-sided test, in (0, 1).
        power: Chance to decide, in (0, 1).
        most: Largest number to consider, at least 2.

    Examples:
        >>> count_replicates(0.002, 0.002, alpha=0.05, power=0.8, most=1000)
        8
    """

    def decides(num: int) -> bool:
        return compute_power(distance, std, num, alpha) >= power

    if not decides(most):
        return None
    low, high = FEWEST - 1, most  # low does not decide, high does; power grows with the number
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def count_replicates_by_sign(share: float, *, alpha: float, power: float, most: int) -> int | None:
    """Returns the smallest number of replicates for which a sign test decides with the given chance; None beyond most.

    Args:
        share: Of the differences that truly lie on one side of the bound, in [0, 1].
        alpha: Level of the one-sided test, in (0, 1).
        power: Chance to decide, in (0, 1).
        most: Largest number to consider, at least 2.

    Examples:
        >>> count_replicates_by_sign(1.0, alpha=0.05, power=0.8, most=1000)
        5
    """
    nums = np.arange(FEWEST, most + 1)
    needed = stats.binom.isf(alpha, nums, 0.5) + 1  # so many on that side have a chance of at most alpha
    decides = stats.binom.sf(needed - 1, nums, share) >= power
    return int(nums[decides.argmax()]) if decides.any() else None

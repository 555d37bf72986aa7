"""Do positive differences prevail beyond chance? An exact test, whatever their distribution and however few."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_EXACT: Final = 256  # differences; beyond, the normal approximation has the same first digits far into the tail


@final
@dataclass(frozen=True)
class Prevalence:
    """How much positive differences prevail.

    Attributes:
        z: The sum of the signed ranks in standard deviations.
        p: How often fair signs give at least this sum; one-sided.
    """

    z: float
    p: float


def compare_signs(differences: Tensor) -> Prevalence:
    """Returns how much positive differences prevail over negative ones, by Wilcoxon's signed ranks.

    The null: each difference is as likely to have the other sign, independently of the others. The test is exact then,
    for differences of any distribution; one that is far out counts as the largest, and no more. Differences that are
    zero or NaN say nothing and are left out.

    Args:
        differences: Of any shape.

    Examples:
        >>> found = compare_signs(torch.tensor([3.0, 1.0, 2.0, 40.0, 0.0]))
        >>> found.p, round(found.z, 2)
        (0.0625, 1.83)
    """
    exact = torch.float32 if differences.dtype in {torch.float32, torch.bfloat16, torch.float16} else torch.float64
    values = differences.detach().to("cpu", exact).flatten().numpy()
    values = values[~np.isnan(values) & (values != 0)]
    if not len(values):
        return Prevalence(0.0, 1.0)
    # Magnitudes sort like their bits, which have room for one more: the sign.
    words = np.uint32 if exact == torch.float32 else np.uint64
    keys = np.sort((np.abs(values).view(words) << words(1)) | (values > 0))
    doubled = _double_mean_ranks(keys >> words(1))
    above = int(doubled[(keys & words(1)).astype(np.bool_)].sum())
    z = (2 * above - int(doubled.sum())) / math.sqrt(float(np.square(doubled, dtype=np.float64).sum()))
    if len(values) > MOST_EXACT:
        return Prevalence(z, math.erfc(z / math.sqrt(2)) / 2)
    return Prevalence(z, _sum_tail(doubled, above))


def _double_mean_ranks(ascending: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Returns twice the mean rank of those that tie, an integer, for each."""
    starts = np.empty(len(ascending), np.bool_)
    starts[0] = True
    np.not_equal(ascending[1:], ascending[:-1], out=starts[1:])
    if starts.all():
        return np.arange(2, 2 * len(ascending) + 2, 2)
    firsts = np.flatnonzero(starts)
    counts = np.diff(firsts, append=len(ascending))
    return np.repeat(2 * firsts + counts + 1, counts)


def _sum_tail(parts: NDArray[np.int64], least: int) -> float:
    """Returns how often a sum, to which each part belongs with probability one half, is at least so much."""
    step = int(np.gcd.reduce(parts))
    ways = _count_ways((np.sort(parts) // step).tobytes())
    return float(ways[least // step :].sum() * 0.5 ** len(parts))


@lru_cache(maxsize=4)  # without ties the parts are those of the check before
def _count_ways(parts: bytes) -> NDArray[np.float64]:
    """Returns in how many ways each sum of some int64 parts comes about; at most 2^256, which a float holds."""
    sizes = np.frombuffer(parts, np.int64)
    ways = np.zeros(int(sizes.sum()) + 1)
    ways[0], reached = 1.0, 0
    for size in sizes.tolist():
        ways[size : reached + size + 1] += ways[: reached + 1].copy()
        reached += size
    return ways

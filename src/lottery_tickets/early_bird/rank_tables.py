"""The rank of each of 65,536 codes among some weights, from how many weights have each code."""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

RANK_BITS: Final = 32

Counts = NDArray[np.int64]


@final
class Moments(NamedTuple):
    """How many ranks there are, their sum and the sum of their squares: exact."""

    size: int
    total: int
    squares: int


@final
class RankTable(NamedTuple):
    """The rank of each code, and the moments of the ranks of all weights."""

    ranks: NDArray[np.uint32]
    moments: Moments


@final
@dataclass(frozen=True, eq=False)
class Ranks:
    """The rank of each of less than 2^20 weights, looked up once for all that it is compared with.

    Attributes:
        values: Twice the mid-rank less one, 1-D.
        moments: Of these.
    """

    values: NDArray[np.int64]
    moments: Moments


def make_table(counts: Counts) -> RankTable:
    """Returns the ranks of codes among weights that are counted by code; of more than 2^31, rounded down to 32 bits."""
    mid_ranks = find_mid_ranks(counts)
    # The largest doubled mid-rank is 2 n - 1.
    shift = max(0, (2 * int(counts.sum()) - 1).bit_length() - RANK_BITS)
    if not shift:
        return RankTable(mid_ranks.astype(np.uint32), find_moments(counts))
    ranks = (mid_ranks >> shift).astype(np.uint32)
    return RankTable(ranks, _find_moments_of_rounded(counts, ranks))


def find_mid_ranks(counts: Counts) -> Counts:
    """Returns for each code twice its mid-rank less one: twice the codes that are less, plus those that are equal."""
    ranks: Counts = 2 * counts.cumsum() - counts
    return ranks


def find_moments(counts: Counts) -> Moments:
    """Returns the moments of all `find_mid_ranks`.

    Without ties these are the first n odd numbers, whose sum is n^2 and whose squares sum up to n (4 n^2 - 1) / 3. Each
    tie of c weights keeps the sum, and lowers that of the squares by (c^3 - c) / 3.
    """
    size = int(counts.sum())
    # The cubes of counts up to this sum up to n * limit^2 at most, which fits int64. There are few larger ones.
    limit = math.isqrt((2**63 - 1) // max(1, size))
    many = counts[counts > limit] if int(counts.max(initial=0)) > limit else counts[:0]
    few = counts[counts <= limit] if len(many) else counts
    cubes = int((few * few) @ few) + sum(count**3 for count in many.tolist())
    return Moments(size, size**2, (4 * size**3 - cubes) // 3)


def _find_moments_of_rounded(counts: Counts, ranks: NDArray[np.uint32]) -> Moments:
    # Python's integers: the counts times squares of 32 bits need up to 128 bits.
    exact = ranks.astype(object)
    sums = counts.astype(object) * exact
    return Moments(int(counts.sum()), int(sums.sum()), int((sums * exact).sum()))

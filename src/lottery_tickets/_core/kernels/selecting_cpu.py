"""The numba loops of selection for large CPU tensors: the same bits as `selecting_reference`, many times as fast.

Each loop goes through blocks of 1,024 weights, and compares 64 of a block at once (`lanes`). One pass from memory is
what a loop costs at least, and what it nearly costs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.kernels.lanes import LANES, count_ones, exceed, find_first_one
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.thresholds import Bracket, Counters

BLOCK = 1024
LANES_IN_BLOCK = BLOCK // LANES
NUM_BINS = 1 << 18  # of 4 bytes: the counters of one thread fit the second-level cache
ALL = np.empty(0, np.uint64)
ALL_LANES = ~np.uint64(0)


# The last pattern below a bracket, the last one in it, the last one that is finite.
_Bounds = tuple[np.signedinteger, np.signedinteger, np.signedinteger]


class _Part(NamedTuple):
    """Whole blocks of weights, and words of 64 bits for them."""

    start: int  # of its first weight
    words: NDArray[np.signedinteger]
    eligible: NDArray[np.uint64]  # `ALL` where all are
    bits: NDArray[np.uint64]


def count_patterns(
    words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters, infinity: int
) -> tuple[int, bool]:
    """Counts magnitudes by bit pattern; see `selecting_reference.count_patterns`."""
    above, not_finite = 0, 0
    for part in _split(words, within, None):
        bounds = _bounds(part, bracket.lo, bracket.hi, infinity)
        above_here, not_finite_here = _count(part.words, part.eligible, bounds, bracket.shift, bins)
        above, not_finite = above + int(above_here), not_finite | int(not_finite_here)
    return above, not not_finite


def classify(  # noqa: PLR0917 - as `selecting_reference.classify`
    words: Tensor,
    within: Tensor | None,
    bounds: tuple[int, int],
    bits: Tensor,
    listed: Listed,
    infinity: int,
) -> tuple[int, int, bool]:
    """Packs what is above a bracket and lists what is in it; see `selecting_reference.classify`."""
    above, inside, not_finite = 0, 0, 0
    for part in _split(words, within, bits):
        room = Listed(listed.positions[inside:], listed.patterns[inside:])
        found = _classify(part, _bounds(part, *bounds, infinity), *room)
        above, inside, not_finite = above + int(found[0]), inside + int(found[1]), not_finite | int(found[2])
    return above, inside, not not_finite


def set_bits(bits: Tensor, positions: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
    """Sets bits; see `selecting_reference.set_bits`."""
    _set_bits(bits.numpy(), positions, chosen.view(np.uint8))


def pack_above(words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
    """Packs which magnitudes are above the threshold; see `selecting_reference.pack_above`."""
    return sum(int(_pack(part, part.words.dtype.type(threshold))) for part in _split(words, within, bits))


def keep_first_equal(words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
    """Sets the bits of the first magnitudes equal to the threshold; see `selecting_reference.keep_first_equal`."""
    for part in _split(words, within, bits):
        quota = int(_keep_equal(part, part.words.dtype.type(threshold), quota))


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one a thread that torch may use."""
    return torch.get_num_threads()


def _split(words: Tensor, within: Tensor | None, bits: Tensor | None) -> Iterator[_Part]:
    """Yields the whole blocks, then what is left over, padded to a block whose bits are copied back when it is done."""
    array = words.numpy()
    eligible, packed = (ALL.view(np.uint8) if given is None else given.numpy() for given in (within, bits))
    whole = array.size // BLOCK * BLOCK
    if whole:
        yield _Part(0, array[:whole], *(given[: whole // 8].view(np.uint64) for given in (eligible, packed)))
    if whole < array.size:
        padded = np.zeros(BLOCK, array.dtype)
        padded[: array.size - whole] = array[whole:]
        exist = np.packbits(np.arange(BLOCK) < array.size - whole, bitorder="little")
        last = packed[whole // 8 :]
        flags = np.zeros(BLOCK // 8, np.uint8)
        flags[: len(last)] = last
        if within is not None:
            exist[: len(eligible) - whole // 8] &= eligible[whole // 8 :]
        yield _Part(whole, padded, exist.view(np.uint64), flags.view(np.uint64))
        last[:] = flags[: len(last)]


def _bounds(part: _Part, lo: int, hi: int, infinity: int) -> _Bounds:
    as_pattern = part.words.dtype.type
    return as_pattern(lo - 1), as_pattern(hi), as_pattern(infinity - 1)


@numba.njit(cache=True, nogil=True)
def _count(
    words: NDArray[np.signedinteger],
    eligible: NDArray[np.uint64],
    bounds: _Bounds,
    shift: int,
    bins: Counters,
) -> tuple[np.uint64, np.uint64]:
    inside = np.empty(LANES_IN_BLOCK, np.uint64)
    below, hi, greatest = bounds
    mask = words.dtype.type(np.iinfo(words.dtype).max)
    above, not_finite = np.uint64(0), np.uint64(0)
    for first in range(0, words.size // LANES, LANES_IN_BLOCK):
        for i in range(LANES_IN_BLOCK):
            start = (first + i) * LANES
            allowed = eligible[first + i] if eligible.size else ALL_LANES
            above_here = exceed(words, start, hi)
            inside[i] = (exceed(words, start, below) ^ above_here) & allowed
            above += count_ones(above_here & allowed)
            not_finite |= exceed(words, start, greatest)
        for i in range(LANES_IN_BLOCK):
            rest = inside[i]
            while rest:
                place = (first + i) * LANES + find_first_one(rest)
                bins[((words[place] & mask) - below - 1) >> shift] += 1
                rest &= rest - np.uint64(1)
    return above, not_finite


@numba.njit(cache=True, nogil=True)
def _classify(
    part: _Part,
    bounds: _Bounds,
    positions: NDArray[np.int32],
    patterns: NDArray[np.signedinteger],
) -> tuple[np.uint64, int, np.uint64]:
    inside = np.empty(LANES_IN_BLOCK, np.uint64)
    words, eligible, bits = part.words, part.eligible, part.bits
    below, hi, greatest = bounds
    mask = words.dtype.type(np.iinfo(words.dtype).max)
    above, num_inside, not_finite = np.uint64(0), 0, np.uint64(0)
    for first in range(0, words.size // LANES, LANES_IN_BLOCK):
        for i in range(LANES_IN_BLOCK):
            start = (first + i) * LANES
            allowed = eligible[first + i] if eligible.size else ALL_LANES
            above_here = exceed(words, start, hi)
            inside[i] = (exceed(words, start, below) ^ above_here) & allowed
            bits[first + i] = above_here & allowed
            above += count_ones(above_here & allowed)
            not_finite |= exceed(words, start, greatest)
        for i in range(LANES_IN_BLOCK):
            rest = inside[i]
            while rest:
                if num_inside < positions.size:
                    place = (first + i) * LANES + find_first_one(rest)
                    positions[num_inside] = part.start + place
                    patterns[num_inside] = words[place] & mask
                num_inside += 1
                rest &= rest - np.uint64(1)
    return above, num_inside, not_finite


@numba.njit(cache=True, nogil=True)
def _set_bits(bits: NDArray[np.uint8], positions: NDArray[np.int32], chosen: NDArray[np.uint8]) -> None:
    for i in range(positions.size):
        bits[positions[i] >> 3] |= np.uint8(chosen[i] << (positions[i] & 7))


@numba.njit(cache=True, nogil=True)
def _pack(part: _Part, threshold: np.signedinteger) -> np.uint64:
    words, eligible, bits = part.words, part.eligible, part.bits
    below = words.dtype.type(threshold - 1)
    num_equal = np.uint64(0)
    for i in range(bits.size):
        allowed = eligible[i] if eligible.size else ALL_LANES
        above = exceed(words, i * LANES, threshold)
        bits[i] = above & allowed
        num_equal += count_ones((exceed(words, i * LANES, below) ^ above) & allowed)
    return num_equal


@numba.njit(cache=True, nogil=True)
def _keep_equal(part: _Part, threshold: np.signedinteger, quota: int) -> int:
    """Returns how many more may be kept."""
    words, eligible, bits = part.words, part.eligible, part.bits
    below = words.dtype.type(threshold - 1)
    for i in range(bits.size):
        allowed = eligible[i] if eligible.size else ALL_LANES
        equal = (exceed(words, i * LANES, below) ^ exceed(words, i * LANES, threshold)) & allowed
        while equal and quota:
            lowest = equal & (~equal + np.uint64(1))
            bits[i] |= lowest
            equal ^= lowest
            quota -= 1
        if quota == 0:
            break
    return quota

"""The numba loops of selection for large CPU tensors: the same bits as `selecting_reference`, ten times as fast.

Each loop reads 1,024 weights into a buffer in the first-level cache, as non-negative integers that sort like magnitudes
(-1 where a weight is not eligible), so that all further loops have one shape that LLVM turns into vector instructions.
"""

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.thresholds import Bracket, Counters

BLOCK = 1024
NUM_BINS = 1 << 18  # of 4 bytes: the counters of one thread fit the second-level cache
# Times a power of two, the upper six bits of this sequence are the power's (Leiserson, Prokop & Randall 1998).
DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
BIT_OF_PRODUCT = np.argsort([((int(DE_BRUIJN) << bit) & (2**64 - 1)) >> 58 for bit in range(64)])
ALL = np.empty(0, np.uint8)


def count_patterns(words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters) -> tuple[int, int]:
    """Counts magnitudes by bit pattern; see `selecting_reference.count_patterns`."""
    array = words.numpy()
    as_pattern = array.dtype.type
    bounds = as_pattern(bracket.lo), as_pattern(bracket.hi)
    above, largest = _count(array, _eligible(within), bounds, bracket.shift, bins)
    return int(above), int(largest)


def classify(
    words: Tensor, within: Tensor | None, bounds: tuple[int, int], bits: Tensor, positions: NDArray[np.int32]
) -> tuple[int, int]:
    """Packs what is above a bracket and lists what is in it; see `selecting_reference.classify`."""
    array = words.numpy()
    lo, hi = array.dtype.type(bounds[0]), array.dtype.type(bounds[1])
    num_inside, largest = _classify(array, _eligible(within), (lo, hi), bits.numpy(), positions)
    return int(num_inside), int(largest)


def set_bits(bits: Tensor, positions: NDArray[np.int32]) -> None:
    """Sets bits; see `selecting_reference.set_bits`."""
    _set_bits(bits.numpy(), positions)


def pack_above(words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
    """Packs which magnitudes are above the threshold; see `selecting_reference.pack_above`."""
    array = words.numpy()
    return int(_pack(array, _eligible(within), array.dtype.type(threshold), bits.numpy()))


def keep_first_equal(words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
    """Sets the bits of the first magnitudes equal to the threshold; see `selecting_reference.keep_first_equal`."""
    array = words.numpy()
    _keep_equal(array, _eligible(within), array.dtype.type(threshold), quota, bits.numpy())


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one a thread that torch may use."""
    return torch.get_num_threads()


def _eligible(within: Tensor | None) -> NDArray[np.uint8]:
    return ALL if within is None else within.numpy()


@numba.njit(cache=True, nogil=True)
def _load(
    words: NDArray[np.signedinteger], within: NDArray[np.uint8], start: int, patterns: NDArray[np.signedinteger]
) -> np.signedinteger:
    mask = patterns.dtype.type(np.iinfo(patterns.dtype).max)
    largest = patterns.dtype.type(0)
    if start + BLOCK <= words.size:
        block = words[start : start + BLOCK]
        for i in range(BLOCK):
            pattern = block[i] & mask
            patterns[i] = pattern
            largest = max(largest, pattern)
    else:
        patterns[:] = -1
        for i in range(words.size - start):
            pattern = words[start + i] & mask
            patterns[i] = pattern
            largest = max(largest, pattern)
    if within.size:
        _exclude(within[start // 8 : (start + BLOCK) // 8], patterns)
    return largest


@numba.njit(cache=True, nogil=True)
def _exclude(within: NDArray[np.uint8], patterns: NDArray[np.signedinteger]) -> None:
    pruned = np.zeros(BLOCK // 8, np.uint8)
    for byte in range(within.size):
        pruned[byte] = ~within[byte]
    pruned64 = pruned.view(np.uint64)
    for word in range(BLOCK // 64):
        flags = pruned64[word]
        for lane in range(64):
            # `|= -1` makes any pattern -1, and `|= 0` keeps it: no branch, so that it vectorises.
            patterns[64 * word + lane] |= -patterns.dtype.type((flags >> np.uint64(lane)) & np.uint64(1))


@numba.njit(cache=True, nogil=True)
def _count(
    words: NDArray[np.signedinteger],
    within: NDArray[np.uint8],
    bounds: tuple[np.signedinteger, np.signedinteger],
    shift: int,
    bins: Counters,
) -> tuple[int, np.signedinteger]:
    patterns = np.empty(BLOCK, words.dtype)
    inside = np.empty(BLOCK // 8, np.uint8)
    inside64 = inside.view(np.uint64)
    lo, hi = bounds
    above = 0
    largest = words.dtype.type(0)
    for start in range(0, words.size, BLOCK):
        largest = max(largest, _load(words, within, start, patterns))
        above_here = np.int32(0)
        for i in range(BLOCK):
            above_here += np.int32(patterns[i] > hi)
        above += int(above_here)
        for byte in range(BLOCK // 8):
            flags = np.uint32(0)
            for i in range(8):
                pattern = patterns[8 * byte + i]
                flags |= np.uint32((pattern >= lo) & (pattern <= hi)) << np.uint32(i)
            inside[byte] = flags
        # The bracket holds few weights, so most words are zero and are passed over.
        for word in range(BLOCK // 64):
            rest = inside64[word]
            while rest:
                i = 64 * word + BIT_OF_PRODUCT[((rest & -rest) * DE_BRUIJN) >> np.uint64(58)]
                bins[(patterns[i] - lo) >> shift] += 1
                rest &= rest - np.uint64(1)
    return above, largest


@numba.njit(cache=True, nogil=True)
def _classify(
    words: NDArray[np.signedinteger],
    within: NDArray[np.uint8],
    bounds: tuple[np.signedinteger, np.signedinteger],
    bits: NDArray[np.uint8],
    positions: NDArray[np.int32],
) -> tuple[int, np.signedinteger]:
    patterns = np.empty(BLOCK, words.dtype)
    above, inside = np.empty(BLOCK // 8, np.uint8), np.empty(BLOCK // 8, np.uint8)
    inside64 = inside.view(np.uint64)
    lo, hi = bounds
    num_inside = 0
    largest = words.dtype.type(0)
    for start in range(0, words.size, BLOCK):
        largest = max(largest, _load(words, within, start, patterns))
        for byte in range(BLOCK // 8):
            above_lo, above_hi = np.uint32(0), np.uint32(0)
            for i in range(8):
                pattern = patterns[8 * byte + i]
                above_lo |= np.uint32(pattern >= lo) << np.uint32(i)
                above_hi |= np.uint32(pattern > hi) << np.uint32(i)
            above[byte], inside[byte] = above_hi, above_lo ^ above_hi
        first = start // 8
        for byte in range(min(BLOCK // 8, bits.size - first)):
            bits[first + byte] = above[byte]
        # The bracket holds few weights, so most words are zero and are passed over.
        for word in range(BLOCK // 64):
            rest = inside64[word]
            while rest:
                if num_inside < positions.size:
                    place = BIT_OF_PRODUCT[((rest & -rest) * DE_BRUIJN) >> np.uint64(58)]
                    positions[num_inside] = start + 64 * word + place
                num_inside += 1
                rest &= rest - np.uint64(1)
    return num_inside, largest


@numba.njit(cache=True, nogil=True)
def _set_bits(bits: NDArray[np.uint8], positions: NDArray[np.int32]) -> None:
    for position in positions:
        bits[position >> 3] |= np.uint8(1 << (position & 7))


@numba.njit(cache=True, nogil=True)
def _pack(
    words: NDArray[np.signedinteger], within: NDArray[np.uint8], threshold: np.signedinteger, bits: NDArray[np.uint8]
) -> int:
    patterns = np.empty(BLOCK, words.dtype)
    num_equal = 0
    for start in range(0, words.size, BLOCK):
        _load(words, within, start, patterns)
        equal_here = np.int32(0)
        for i in range(BLOCK):
            equal_here += np.int32(patterns[i] == threshold)
        num_equal += int(equal_here)
        first = start // 8
        for byte in range(min(BLOCK // 8, bits.size - first)):
            flags = np.uint32(0)
            for i in range(8):
                flags |= np.uint32(patterns[8 * byte + i] > threshold) << np.uint32(i)
            bits[first + byte] = flags
    return num_equal


@numba.njit(cache=True, nogil=True)
def _keep_equal(
    words: NDArray[np.signedinteger],
    within: NDArray[np.uint8],
    threshold: np.signedinteger,
    quota: int,
    bits: NDArray[np.uint8],
) -> None:
    patterns = np.empty(BLOCK, words.dtype)
    for start in range(0, words.size, BLOCK):
        _load(words, within, start, patterns)
        equal_here = np.int32(0)
        for i in range(BLOCK):
            equal_here += np.int32(patterns[i] == threshold)
        if not equal_here:
            continue
        for i in range(BLOCK):
            if patterns[i] == threshold:
                if quota == 0:
                    return
                bits[(start + i) >> 3] |= np.uint8(1 << (i & 7))
                quota -= 1

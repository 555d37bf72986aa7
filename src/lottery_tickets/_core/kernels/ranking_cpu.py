"""The numba loops of rank correlation for large CPU tensors: the same bits as `ranking_reference`.

Indices are unsigned, which spares each the check for one below zero.
"""

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# `entry` of a table: a bin's first code in the upper 16 bits, its number of codes in the lower.
PATTERN = np.uint32(0x7FFFFFFF)
LOW_BITS = np.uint32(15)
PLACE = np.uint32(0x7FFF)
CODE_BITS = np.uint32(16)
CODE = np.uint32(0xFFFF)


def count_bins(words: Tensor, share: int, bins: NDArray[np.int64]) -> None:
    """Adds the share of one weight to the bin of each; see `ranking_reference.count_bins`."""
    _count_bins(words.numpy().view(np.uint32), share, bins)


def encode(words: Tensor, table: NDArray[np.uint32], codes: Tensor) -> None:
    """Writes the code of each weight; see `ranking_reference.encode`."""
    _encode(words.numpy().view(np.uint32), table, codes.numpy().view(np.uint16))


def clear_signs(words: Tensor, codes: Tensor) -> int:
    """Writes the patterns of floats of 16 bits; see `ranking_reference.clear_signs`."""
    return int(_clear_signs(words.numpy(), codes.numpy()))


def count_codes(codes: NDArray[np.uint16], counts: NDArray[np.unsignedinteger]) -> None:
    """Counts codes; see `ranking_reference.count_codes`."""
    _count_codes(codes, counts)


def sum_products(
    earlier: NDArray[np.uint16],
    later: NDArray[np.uint16],
    earlier_ranks: NDArray[np.uint32],
    later_ranks: NDArray[np.uint32],
) -> int:
    """Returns the exact sum of products of ranks; see `ranking_reference.sum_products`."""
    upper, lower = _sum_products(earlier, later, earlier_ranks, later_ranks)
    return (int(upper) << 64) + int(lower)


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one a thread that torch may use."""
    return torch.get_num_threads()


@numba.njit(cache=True, nogil=True)
def _count_bins(words: NDArray[np.uint32], share: int, bins: NDArray[np.int64]) -> None:
    for i in range(words.size):
        bins[(words[i] & PATTERN) >> LOW_BITS] += share


@numba.njit(cache=True, nogil=True)
def _encode(words: NDArray[np.uint32], table: NDArray[np.uint32], codes: NDArray[np.uint16]) -> None:
    for i in range(words.size):
        pattern = np.uint32(words[i] & PATTERN)
        entry = table[pattern >> LOW_BITS]
        codes[i] = (entry >> CODE_BITS) + (((entry & CODE) * (pattern & PLACE)) >> LOW_BITS)


@numba.njit(cache=True, nogil=True)
def _clear_signs(words: NDArray[np.int16], codes: NDArray[np.int16]) -> np.int16:
    largest = np.int16(0)
    for i in range(words.size):
        pattern = np.int16(words[i] & np.int16(0x7FFF))
        codes[i] = pattern
        largest = max(largest, pattern)
    return largest


@numba.njit(cache=True, nogil=True)
def _count_codes(codes: NDArray[np.uint16], counts: NDArray[np.unsignedinteger]) -> None:
    for i in range(codes.size):
        counts[codes[i]] += counts.dtype.type(1)


@numba.njit(cache=True, nogil=True)
def _sum_products(
    earlier: NDArray[np.uint16],
    later: NDArray[np.uint16],
    earlier_ranks: NDArray[np.uint32],
    later_ranks: NDArray[np.uint32],
) -> tuple[np.uint64, np.uint64]:
    upper, lower = np.uint64(0), np.uint64(0)
    for i in range(earlier.size):
        product = np.uint64(earlier_ranks[earlier[i]]) * np.uint64(later_ranks[later[i]])
        lower += product
        upper += np.uint64(lower < product)  # the carry
    return upper, lower

"""The loops of rank correlation in Triton, for many weights on a GPU: the same bits as `ranking_reference`.

Codes lie on the CPU, where snapshots are kept; the loops over two of them take these to the GPU first.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.kernels.blocks_triton import count_blocks, is_compiled, launch
from lottery_tickets._core.kernels.ranking_reference import LOW_BITS
from lottery_tickets._core.kernels.selecting_triton import count_words
from lottery_tickets._core.thresholds import Bracket

LARGEST = torch.iinfo(torch.int32).max
LARGEST_CODE = (1 << 16) - 1


def count_bins(words: Tensor, share: int, bins: NDArray[np.int64]) -> None:
    """Adds the share of one weight to the bin of each; see `ranking_reference.count_bins`."""
    bins += count_words(words, None, Bracket(0, LARGEST, LOW_BITS), LARGEST)[0] * share


def encode(words: Tensor, table: NDArray[np.uint32], codes: Tensor) -> None:
    """Writes the code of each weight; see `ranking_reference.encode`."""
    found = torch.empty(words.numel(), dtype=torch.int16, device=words.device)
    entries = torch.from_numpy(table.view(np.int32)).to(words.device)
    launch(_encode, words, words.numel(), entries, found, low_bits=LOW_BITS)
    codes.copy_(found)


def clear_signs(words: Tensor, codes: Tensor) -> int:
    """Writes the patterns of floats of 16 bits; see `ranking_reference.clear_signs`."""
    found = torch.empty_like(words)
    largest = torch.empty(count_blocks(words), dtype=torch.int16, device=words.device)
    launch(_clear_signs, words, words.numel(), found, largest)
    codes.copy_(found)
    return int(largest.max())


def count_codes(codes: NDArray[np.uint16], counts: NDArray[np.unsignedinteger]) -> None:
    """Counts codes; see `ranking_reference.count_codes`."""
    words = _take_there(codes).to(torch.int32) & LARGEST_CODE
    counts += count_words(words, None, Bracket(0, LARGEST_CODE), LARGEST)[0].astype(counts.dtype)


def sum_products(
    earlier: NDArray[np.uint16],
    later: NDArray[np.uint16],
    earlier_ranks: NDArray[np.uint32],
    later_ranks: NDArray[np.uint32],
) -> int:
    """Returns the exact sum of products of ranks; see `ranking_reference.sum_products`."""
    codes, others = _take_there(earlier), _take_there(later)
    ranks, other_ranks = _take_there(earlier_ranks), _take_there(later_ranks)
    # A product has 64 bits. Its halves are summed apart: 2^31 of them fit int64.
    halves = torch.empty(2, count_blocks(codes), dtype=torch.int64, device=codes.device)
    launch(_multiply, codes, codes.numel(), others, ranks, other_ranks, halves)
    lower, upper = halves.sum(1).tolist()
    return int(lower) + (int(upper) << 32)


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one, a GPU works on one after the other."""
    return 1


def _take_there(values: NDArray[np.unsignedinteger]) -> Tensor:
    """Returns unsigned integers as signed ones of the same bits, on the current GPU."""
    signed = torch.from_numpy(values.view(f"i{values.itemsize}"))
    return signed.to("cuda") if is_compiled() else signed


@triton.jit
def _encode(
    words: tl.tensor,
    num_words: tl.tensor,
    entries: tl.tensor,
    codes: tl.tensor,
    low_bits: tl.constexpr,
    block: tl.constexpr,
) -> None:
    start = tl.program_id(0).to(tl.int64) * block
    places = tl.arange(0, block)
    exists = places < num_words - start
    patterns = tl.load(words + start + places, mask=exists, other=0) & 0x7FFFFFFF
    entry = tl.load(entries + (patterns >> low_bits), mask=exists, other=0)
    inside = patterns & ((1 << low_bits) - 1)
    code = ((entry >> 16) & 0xFFFF) + (((entry & 0xFFFF) * inside) >> low_bits)  # 65,535 * 32,767 fits 31 bits
    tl.store(codes + start + places, code.to(tl.int16), mask=exists)


@triton.jit
def _clear_signs(
    words: tl.tensor, num_words: tl.tensor, codes: tl.tensor, largest: tl.tensor, block: tl.constexpr
) -> None:
    program = tl.program_id(0)
    start = program.to(tl.int64) * block
    places = tl.arange(0, block)
    exists = places < num_words - start
    patterns = tl.load(words + start + places, mask=exists, other=0) & 0x7FFF
    tl.store(codes + start + places, patterns, mask=exists)
    tl.store(largest + program, tl.max(patterns.to(tl.int32), axis=0).to(tl.int16))


@triton.jit
def _multiply(
    earlier: tl.tensor,
    num_codes: tl.tensor,
    later: tl.tensor,
    earlier_ranks: tl.tensor,
    later_ranks: tl.tensor,
    halves: tl.tensor,
    block: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    start = program.to(tl.int64) * block
    places = tl.arange(0, block)
    exists = places < num_codes - start
    one = tl.load(earlier + start + places, mask=exists, other=0).to(tl.int32) & 0xFFFF
    other = tl.load(later + start + places, mask=exists, other=0).to(tl.int32) & 0xFFFF
    rank = tl.load(earlier_ranks + one, mask=exists, other=0).to(tl.uint32, bitcast=True).to(tl.uint64)
    other_rank = tl.load(later_ranks + other, mask=exists, other=0).to(tl.uint32, bitcast=True).to(tl.uint64)
    product = rank * other_rank
    tl.store(halves + program, tl.sum((product & 0xFFFFFFFF).to(tl.int64)))
    tl.store(halves + tl.num_programs(0) + program, tl.sum((product >> 32).to(tl.int64)))

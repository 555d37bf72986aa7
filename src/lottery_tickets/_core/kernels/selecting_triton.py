"""The loops of selection in Triton, for many weights on a GPU: the same bits as `selecting_reference`.

Each looks at a weight once. Programs write what they count to places of their own; only the bins are shared, and sums
of integers do not depend on their order. What a pass lists lies on the CPU and is worked on there.
"""

from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.kernels import selecting_cpu
from lottery_tickets._core.kernels.blocks_triton import BLOCK, bring, count_blocks, is_compiled, launch, read_bits
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.thresholds import Bracket, Counters

NUM_BINS = 1 << 16  # patterns of 16 bits take one pass, those of 32 two; the bins stay in a GPU's second-level cache
WORKERS = 4
COPIES = 8  # of the bins, because programs that add to one counter wait for each other


class _Compared(NamedTuple):
    """What one look at some weights finds, where they lie.

    Attributes:
        above: Packed bits: eligible and above the bounds.
        inside: Packed bits: eligible and within them.
        counts: By block, how many are above, inside, and not finite; int32 of 3 rows.
    """

    above: Tensor
    inside: Tensor
    counts: Tensor


def count_patterns(
    words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters, infinity: int
) -> tuple[int, bool]:
    """Counts magnitudes by bit pattern; see `selecting_reference.count_patterns`."""
    if is_compiled() and words.device.type == "cpu":
        return selecting_cpu.count_patterns(words, within, bracket, bins, infinity)
    found, num_above, is_finite = count_words(words, within, bracket, infinity)
    bins += found.astype(bins.dtype, copy=False)
    return num_above, is_finite


def count_words(
    words: Tensor, within: Tensor | None, bracket: Bracket, infinity: int
) -> tuple[NDArray[np.int64], int, bool]:
    """Returns how many eligible patterns are in each bin, how many above the bracket, and whether all are finite."""
    bins = torch.zeros(COPIES, bracket.num_bins, dtype=torch.int32, device=words.device)
    counts = torch.empty(2, count_blocks(words), dtype=torch.int32, device=words.device)
    launch(
        _count,
        words,
        None if within is None else within.to(words.device),
        words.numel(),
        *bracket,
        infinity,
        bins,
        bracket.num_bins,
        counts,
        copies=COPIES,
        mask=torch.iinfo(words.dtype).max,
    )
    num_above, num_not_finite = counts.sum(1).tolist()
    return bins.sum(0).cpu().numpy(), num_above, not num_not_finite


def classify(
    words: Tensor,
    within: Tensor | None,
    bounds: tuple[int, int],
    bits: Tensor,
    listed: Listed,
    infinity: int,
) -> tuple[int, int, bool]:
    """Packs what is above a bracket and lists what is in it; see `selecting_reference.classify`."""
    found = _compare_words(words, within, bounds, infinity)
    num_above, num_inside, num_not_finite = found.counts.sum(1).tolist()
    bring(found.above, bits)
    num_listed = min(num_inside, len(listed.positions))
    positions = torch.empty(num_listed, dtype=torch.int32, device=words.device)
    patterns = torch.empty(num_listed, dtype=words.dtype, device=words.device)
    # By block, how many lie in the blocks before it.
    before = found.counts[1].cumsum(0) - found.counts[1]
    mask = torch.iinfo(words.dtype).max
    launch(_list, words, found.inside, words.numel(), before, num_listed, positions, patterns, mask=mask)
    for listing, place in ((positions, listed.positions), (patterns, listed.patterns)):
        bring(listing, torch.from_numpy(place[:num_listed]))
    return num_above, num_inside, not num_not_finite


def set_bits(bits: Tensor, positions: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
    """Sets bits; see `selecting_reference.set_bits`."""
    selecting_cpu.set_bits(bits, positions, chosen)


def pack_above(words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
    """Packs which magnitudes are above the threshold; see `selecting_reference.pack_above`."""
    found = _compare_words(words, within, (threshold, threshold))
    bring(found.above, bits)
    return int(found.counts[1].sum())


def keep_first_equal(words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
    """Sets the bits of the first magnitudes equal to the threshold; see `selecting_reference.keep_first_equal`."""
    found = _compare_words(words, within, (threshold, threshold))
    equal, reached = found.inside.cpu(), found.counts[1].cumsum(0).cpu()
    # The last one kept lies in this block: before it all are kept, behind it none.
    block = int(torch.searchsorted(reached, quota))
    if block < len(reached):
        first = block * BLOCK // 8
        flags = np.unpackbits(equal[first : first + BLOCK // 8].numpy(), bitorder="little")
        num_before = int(reached[block - 1]) if block else 0
        flags[flags.nonzero()[0][quota - num_before :]] = 0
        equal[first:] = 0
        equal[first : first + len(flags) // 8] = torch.from_numpy(np.packbits(flags, bitorder="little"))
    bits |= equal


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: while bits of one are put away, the GPU works on the next."""
    return WORKERS if is_compiled() else 1


def _compare_words(words: Tensor, within: Tensor | None, bounds: tuple[int, int], infinity: int = 0) -> _Compared:
    above, inside = (torch.empty(num_bytes(words.numel()), dtype=torch.uint8, device=words.device) for _ in range(2))
    counts = torch.empty(3, count_blocks(words), dtype=torch.int32, device=words.device)
    eligible = None if within is None else within.to(words.device)
    mask = torch.iinfo(words.dtype).max
    launch(_compare, words, eligible, words.numel(), *bounds, infinity, above, inside, counts, mask=mask)
    return _Compared(above, inside, counts)


@triton.jit(do_not_specialize=["lo", "hi", "shift", "infinity", "num_bins"])
def _count(
    words: tl.tensor,
    eligible: tl.tensor,
    num_words: tl.tensor,
    lo: tl.tensor,
    hi: tl.tensor,
    shift: tl.tensor,
    infinity: tl.tensor,
    bins: tl.tensor,
    num_bins: tl.tensor,
    counts: tl.tensor,
    copies: tl.constexpr,
    mask: tl.constexpr,
    block: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    start = program.to(tl.int64) * block
    rows, lanes = tl.arange(0, block // 8), tl.arange(0, 8)
    places = rows[:, None] * 8 + lanes[None, :]
    allowed = places < num_words - start
    patterns = tl.load(words + start + places, mask=allowed, other=0) & mask
    tl.store(counts + tl.num_programs(0) + program, tl.sum((patterns >= infinity).to(tl.int32)))
    if eligible is not None:
        allowed = read_bits(eligible + start // 8, rows, lanes, num_words - start)
    tl.store(counts + program, tl.sum(((patterns > hi) & allowed).to(tl.int32)))
    own = bins + program % copies * num_bins
    tl.atomic_add(
        own + ((patterns - lo) >> shift), 1, mask=allowed & (patterns >= lo) & (patterns <= hi), sem="relaxed"
    )


@triton.jit(do_not_specialize=["lo", "hi", "infinity"])
def _compare(
    words: tl.tensor,
    eligible: tl.tensor,
    num_words: tl.tensor,
    lo: tl.tensor,
    hi: tl.tensor,
    infinity: tl.tensor,
    above: tl.tensor,
    inside: tl.tensor,
    counts: tl.tensor,
    mask: tl.constexpr,
    block: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    start = program.to(tl.int64) * block
    rows, lanes = tl.arange(0, block // 8), tl.arange(0, 8)
    places = rows[:, None] * 8 + lanes[None, :]
    allowed = places < num_words - start
    patterns = tl.load(words + start + places, mask=allowed, other=0) & mask
    tl.store(counts + 2 * tl.num_programs(0) + program, tl.sum((patterns >= infinity).to(tl.int32)))
    if eligible is not None:
        allowed = read_bits(eligible + start // 8, rows, lanes, num_words - start)
    is_above = ((patterns > hi) & allowed).to(tl.int32)
    is_inside = ((patterns >= lo) & (patterns <= hi) & allowed).to(tl.int32)
    tl.store(counts + program, tl.sum(is_above))
    tl.store(counts + tl.num_programs(0) + program, tl.sum(is_inside))
    exists = rows * 8 < num_words - start
    tl.store(above + start // 8 + rows, tl.sum(is_above << lanes[None, :], axis=1).to(tl.uint8), mask=exists)
    tl.store(inside + start // 8 + rows, tl.sum(is_inside << lanes[None, :], axis=1).to(tl.uint8), mask=exists)


@triton.jit(do_not_specialize=["num_listed"])
def _list(
    words: tl.tensor,
    inside: tl.tensor,
    num_words: tl.tensor,
    before: tl.tensor,
    num_listed: tl.tensor,
    positions: tl.tensor,
    patterns: tl.tensor,
    mask: tl.constexpr,
    block: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    start = program.to(tl.int64) * block
    places = tl.arange(0, block)
    packed = tl.load(inside + start // 8 + places // 8, mask=places < num_words - start, other=0).to(tl.int32)
    is_inside = (packed >> (places % 8)) & 1
    ranks = tl.load(before + program) + tl.cumsum(is_inside, 0) - is_inside
    listed = (is_inside != 0) & (ranks < num_listed)
    tl.store(positions + ranks, (start + places).to(tl.int32), mask=listed)
    tl.store(patterns + ranks, tl.load(words + start + places, mask=listed, other=0) & mask, mask=listed)

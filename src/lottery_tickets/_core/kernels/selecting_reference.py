"""The loops of selection in plain torch, for any device: what each kernel must compute, bit for bit.

`words` are floats seen as signed integers of their own width, 1-D. With the sign bit cleared they sort like magnitudes:
the *pattern* of a weight. `within` packs which weights are eligible; None means all.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.thresholds import Bracket, Counters

NUM_BINS = 1 << 16
GATHER = sum(1 << (56 - 7 * i) for i in range(8))


class Listed(NamedTuple):
    """Room for positions of weights, in ascending order, and their patterns."""

    positions: NDArray[np.int32]
    patterns: NDArray[np.signedinteger]


def count_patterns(
    words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters, infinity: int
) -> tuple[int, bool]:
    """Returns how many eligible patterns exceed the bracket, and whether all, eligible or not, are finite.

    Args:
        words: 1-D signed integers.
        within: Packed bits of the eligible weights, or None.
        bracket: The patterns to count, from 0 or more.
        bins: int32 or int64 counters, one for each bin of the bracket, which are added to.
        infinity: The least pattern that is not finite.
    """
    patterns = words & torch.iinfo(words.dtype).max
    is_finite = bool((patterns < infinity).all())
    if within is not None:
        patterns = patterns[_unpacked(within, patterns)]
    inside = patterns[(patterns >= bracket.lo) & (patterns <= bracket.hi)].to(torch.int64)
    counts = torch.bincount((inside - bracket.lo) >> bracket.shift)
    bins[: len(counts)] += counts.cpu().numpy()
    return int((patterns > bracket.hi).sum()), is_finite


def classify(  # noqa: PLR0917 - one pass does it all
    words: Tensor,
    within: Tensor | None,
    bounds: tuple[int, int],
    bits: Tensor,
    listed: Listed,
    infinity: int,
) -> tuple[int, int, bool]:
    """Writes the packed bits of the eligible patterns above a bracket, and lists those in it.

    Args:
        words: 1-D signed integers.
        within: Packed bits of the eligible weights, or None.
        bounds: The least and the greatest pattern of the bracket, from 0 or more.
        bits: uint8 on the CPU, ceil(n / 8) bytes, written to.
        listed: Gets the first ones, as many as it has room for.
        infinity: The least pattern that is not finite.

    Returns:
        How many are above the bracket, how many are in it, and whether all patterns, eligible or not, are finite.
    """
    patterns = words & torch.iinfo(words.dtype).max
    above, inside = patterns > bounds[1], (patterns >= bounds[0]) & (patterns <= bounds[1])
    if within is not None:
        eligible = _unpacked(within, patterns)
        above, inside = above & eligible, inside & eligible
    bits.copy_(_packed(above))
    found = inside.nonzero().view(-1)
    first = found[: len(listed.positions)]
    listed.positions[: len(first)] = first.cpu().numpy()
    listed.patterns[: len(first)] = patterns[first].cpu().numpy()
    return int(above.sum()), len(found), bool((patterns < infinity).all())


def set_bits(bits: Tensor, positions: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
    """Sets the bits at those of the positions that are chosen.

    Args:
        bits: uint8 on the CPU, added to.
        positions: Of bits, each once.
        chosen: One for each position.
    """
    np.bitwise_or.at(bits.numpy(), positions >> 3, (chosen << (positions & 7)).astype(np.uint8))


def pack_above(words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
    """Writes the packed bits of the eligible patterns above the threshold; returns how many are equal to it.

    Args:
        words: 1-D signed integers.
        within: Packed bits of the eligible weights, or None.
        threshold: The pattern compared with; -1 keeps all that are eligible.
        bits: uint8 on the CPU, ceil(n / 8) bytes, written to.
    """
    patterns = words & torch.iinfo(words.dtype).max
    above, equal = patterns > threshold, patterns == threshold
    if within is not None:
        eligible = _unpacked(within, patterns)
        above, equal = above & eligible, equal & eligible
    bits.copy_(_packed(above))
    return int(equal.sum())


def keep_first_equal(words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
    """Sets the bits of the first `quota` eligible patterns equal to the threshold.

    Args:
        words: 1-D signed integers.
        within: Packed bits of the eligible weights, or None.
        threshold: The pattern compared with.
        quota: How many are kept, at least 1.
        bits: uint8 on the CPU, ceil(n / 8) bytes, added to.
    """
    patterns = words & torch.iinfo(words.dtype).max
    equal = patterns == threshold
    if within is not None:
        equal &= _unpacked(within, patterns)
    places = equal.nonzero()[quota:]
    equal[places] = False
    bits |= _packed(equal)


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one, torch uses its threads inside a chunk."""
    return 1


def _unpacked(within: Tensor, patterns: Tensor) -> Tensor:
    return unpack_bits(within, patterns.shape).to(patterns.device)


def _packed(kept: Tensor) -> Tensor:
    if kept.device.type == "cpu":
        return torch.from_numpy(np.packbits(kept.numpy(), bitorder="little"))
    # Packed where the weights are, so that one bit and not one byte a weight travels to the CPU. Eight bytes are one
    # word, and byte i of it, times one power of two each, comes to lie at bit i of the highest byte.
    padded = torch.nn.functional.pad(kept.view(torch.uint8), (0, -len(kept) % 8))
    return padded.view(torch.int64).mul(GATHER).bitwise_right_shift_(56).to(torch.uint8).cpu()

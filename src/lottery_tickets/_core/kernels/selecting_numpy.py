"""The loops of selection in numpy, for small CPU tensors: the bits of `selecting_reference`, and no threads woken."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.thresholds import Bracket, Counters

NUM_BINS = 1 << 16


def count_patterns(
    words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters, infinity: int
) -> tuple[int, bool]:
    """Counts magnitudes by bit pattern; see `selecting_reference.count_patterns`."""
    patterns = _patterns(words)
    largest = int(patterns.max(initial=0))
    if within is not None:
        patterns = patterns[_unpacked(within, patterns)]
    num_above = int(np.count_nonzero(patterns > bracket.hi)) if largest > bracket.hi else 0
    if num_above or bracket.lo > 0:
        patterns = patterns[(patterns >= bracket.lo) & (patterns <= bracket.hi)]
    places = torch.from_numpy((patterns - bracket.lo) >> bracket.shift)  # torch counts in half of numpy's time
    bins += torch.bincount(places, minlength=bracket.num_bins).numpy()
    return num_above, largest < infinity


def classify(  # noqa: PLR0917 - as `selecting_reference.classify`
    words: Tensor,
    within: Tensor | None,
    bounds: tuple[int, int],
    bits: Tensor,
    listed: Listed,
    infinity: int,
) -> tuple[int, int, bool]:
    """Packs what is above a bracket and lists what is in it; see `selecting_reference.classify`."""
    patterns = _patterns(words)
    above, inside = patterns > bounds[1], (patterns >= bounds[0]) & (patterns <= bounds[1])
    if within is not None:
        eligible = _unpacked(within, patterns)
        above, inside = above & eligible, inside & eligible
    bits.numpy()[:] = np.packbits(above, bitorder="little")
    found = inside.nonzero()[0]
    first = found[: len(listed.positions)]
    listed.positions[: len(first)] = first
    listed.patterns[: len(first)] = patterns[first]
    return int(np.count_nonzero(above)), len(found), bool((patterns < infinity).all())


def set_bits(bits: Tensor, positions: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
    """Sets bits; see `selecting_reference.set_bits`."""
    np.bitwise_or.at(bits.numpy(), positions >> 3, (chosen << (positions & 7)).astype(np.uint8))


def pack_above(words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
    """Packs which magnitudes are above the threshold; see `selecting_reference.pack_above`."""
    patterns = _patterns(words)
    above, equal = patterns > threshold, patterns == threshold
    if within is not None:
        equal &= _unpacked(within, patterns)
    bits.numpy()[:] = np.packbits(above, bitorder="little") & (255 if within is None else within.numpy())
    return int(np.count_nonzero(equal))


def keep_first_equal(words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
    """Sets the bits of the first magnitudes equal to the threshold; see `selecting_reference.keep_first_equal`."""
    patterns = _patterns(words)
    equal = patterns == threshold
    if within is not None:
        equal &= _unpacked(within, patterns)
    equal[equal.nonzero()[0][quota:]] = False
    bits.numpy()[:] |= np.packbits(equal, bitorder="little")


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one."""
    return 1


def _patterns(words: Tensor) -> NDArray[np.signedinteger]:
    patterns: NDArray[np.signedinteger] = words.numpy() & torch.iinfo(words.dtype).max
    return patterns


def _unpacked(within: Tensor, patterns: NDArray[np.signedinteger]) -> NDArray[np.bool_]:
    return np.unpackbits(within.numpy(), count=len(patterns), bitorder="little").view(np.bool_)

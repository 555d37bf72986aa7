"""Selecting in one look at each weight, where a guess of the threshold is right.

The guess is a bracket of patterns that a sample of the weights gives. What lies above it is kept, what lies below is
not; only the few weights inside it are listed, and among these the threshold is found.
"""

import math
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import count_bits, num_bytes
from lottery_tickets._core.selection.backends import Kernels, check_largest
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes, map_chunks
from lottery_tickets._core.thresholds import Bracket, find_kth_largest

NUM_SAMPLED: Final = 1 << 17
STANDARD_DEVIATIONS: Final = 3  # half the width of the guessed bracket, in the sample's rank; misses in 3 of 1,000
NUM_BINS: Final = 1 << 12  # stay in the cache; two passes over what is listed, which copy nothing
LARGEST_SHARE: Final = 16  # a chunk may have one in so many of its weights listed, which bounds the memory


class _Listed(NamedTuple):
    """What one chunk has in the bracket, in order of position."""

    num_above: int
    positions: NDArray[np.int32]
    patterns: NDArray[np.signedinteger]


def guess_bracket(magnitudes: Magnitudes, num_kept: int) -> tuple[int, int]:
    """Returns patterns between which the least one that is kept probably lies, from a sample."""
    sample = magnitudes.sample(NUM_SAMPLED)
    size = len(sample)
    density = num_kept / magnitudes.num_eligible
    spread = 1 + math.ceil(STANDARD_DEVIATIONS * math.sqrt(size * density * (1 - density)))
    rank = size - 1 - round(density * size)
    greatest = magnitudes.infinity - 1
    lo = int(sample[rank - spread]) if rank >= spread else 0
    hi = int(sample[rank + spread]) if rank + spread < size else greatest
    return min(lo, greatest), min(hi, greatest)


def select_in_one_pass(
    magnitudes: Magnitudes, kernels: Kernels, num_kept: int, guess: tuple[int, int]
) -> dict[str, Tensor] | None:
    """Returns the packed bits of the `num_kept` largest; None when the guess is wrong or too wide.

    Args:
        magnitudes: Of all weights.
        kernels: What classifies.
        num_kept: How many are kept.
        guess: The least and the greatest pattern between which the threshold probably lies.

    Raises:
        ValueError: When a magnitude is NaN or infinite.
    """
    packed = {name: torch.empty(num_bytes(w.size), dtype=torch.uint8) for name, w in magnitudes.weights.items()}
    chunks = magnitudes.chunks()
    found = _classify(magnitudes, kernels, guess, chunks, packed)
    if found is None:
        return None
    num_left = num_kept - sum(listed.num_above for listed in found)
    if not 0 <= num_left <= sum(len(listed.patterns) for listed in found):
        return None
    for chunk, positions in zip(chunks, _keep_largest(found, num_left, guess), strict=True):
        kernels.set_bits(packed[chunk.name][chunk.start // 8 : num_bytes(chunk.stop)], positions)
    return packed


def _classify(
    magnitudes: Magnitudes,
    kernels: Kernels,
    guess: tuple[int, int],
    chunks: list[Chunk],
    packed: dict[str, Tensor],
) -> list[_Listed] | None:
    num_workers = kernels.num_workers()
    longest = max((chunk.stop - chunk.start for chunk in chunks), default=0)
    free: SimpleQueue[NDArray[np.int32]] = SimpleQueue()
    for _ in range(num_workers):
        free.put(np.empty(longest // LARGEST_SHARE + 1, np.int32))

    def classify(chunk: Chunk) -> _Listed | None:
        words, positions = magnitudes.words(chunk), free.get()
        try:
            bits = packed[chunk.name][chunk.start // 8 : num_bytes(chunk.stop)]
            num_inside, largest = kernels.classify(words, magnitudes.eligible(chunk), guess, bits, positions)
            listed = positions[: min(num_inside, len(positions))].copy()
        finally:
            free.put(positions)
        check_largest(magnitudes, chunk, largest)
        if num_inside > len(listed):
            return None
        return _Listed(count_bits(bits), listed, magnitudes.pick(chunk.name, listed.astype(np.int64) + chunk.start))

    found = map_chunks(classify, chunks, num_workers)
    return None if None in found else [listed for listed in found if listed is not None]


def _keep_largest(found: list[_Listed], num_kept: int, guess: tuple[int, int]) -> Iterator[NDArray[np.int32]]:
    """Yields for each chunk the listed positions of what is among the largest, of equal ones the first."""
    if num_kept == 0:
        yield from (listed.positions[:0] for listed in found)
        return
    count = partial(_count, found)
    threshold = find_kth_largest(count, num_kept, least=guess[0], greatest=guess[1], num_bins=NUM_BINS)
    num_equal = num_kept - threshold.num_above
    for listed in found:
        kept = listed.patterns > threshold.value
        equal = np.flatnonzero(listed.patterns == threshold.value)[:num_equal]
        num_equal -= len(equal)
        kept[equal] = True
        yield listed.positions[kept]


def _count(found: list[_Listed], bracket: Bracket) -> tuple[int, NDArray[np.int64]]:
    """Returns how many listed patterns exceed the bracket, and how many lie in each of its bins."""
    num_above, bins = 0, np.zeros(bracket.num_bins, np.int64)
    for listed in found:
        num_above += int(np.count_nonzero(listed.patterns > bracket.hi))
        inside = listed.patterns[(listed.patterns >= bracket.lo) & (listed.patterns <= bracket.hi)]
        bins += np.bincount((inside - bracket.lo) >> bracket.shift, minlength=bracket.num_bins)
    return num_above, bins

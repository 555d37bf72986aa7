"""Selecting in one look at each weight, where a guess of the threshold is right.

The guess is a bracket of patterns that a sample of the weights gives. What lies above it is kept, what lies below is
not; only the few weights inside it are listed, and among these the threshold is found.
"""

import math
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.selection.backends import Kernels, count_workers, refuse_not_finite
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes, map_chunks
from lottery_tickets._core.thresholds import Bracket, Counters, find_kth_largest

NUM_SAMPLED: Final = 1 << 18
NUM_SAMPLED_ELSEWHERE: Final = 1 << 20  # of a GPU or a file: fewer weights in the bracket, because these are kept
NUM_BINS: Final = 1 << 12  # for what is listed: they stay in the cache
STANDARD_DEVIATIONS: Final = 2.5  # half the width of the bracket, in the rank of the sample; one guess in 80 is wrong
LARGEST_SHARE: Final = 16  # a chunk may have one in so many of its weights listed, which bounds the memory


class _Classified(NamedTuple):
    """How many weights a chunk has above the bracket, and those that it has inside."""

    num_above: int
    inside: Listed


def guess_bracket(magnitudes: Magnitudes, num_kept: int) -> tuple[int, int]:
    """Returns patterns between which the least one that is kept probably lies, from a sample."""
    is_near = magnitudes.is_on_cpu and magnitudes.is_in_memory
    sample = magnitudes.sample(NUM_SAMPLED if is_near else NUM_SAMPLED_ELSEWHERE)
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
    num_left = num_kept - sum(classified.num_above for classified in found)
    inside = [classified.inside for classified in found]
    if not 0 <= num_left <= sum(len(listed.patterns) for listed in inside):
        return None
    for chunk, listed, chosen in zip(chunks, inside, _choose_largest(inside, num_left, kernels, guess), strict=True):
        kernels.set_bits(packed[chunk.name][chunk.bytes], listed.positions, chosen)
    return packed


def _classify(
    magnitudes: Magnitudes,
    kernels: Kernels,
    guess: tuple[int, int],
    chunks: list[Chunk],
    packed: dict[str, Tensor],
) -> list[_Classified] | None:
    num_workers = count_workers(magnitudes, kernels)
    room = max((chunk.stop - chunk.start for chunk in chunks), default=0) // LARGEST_SHARE + 1
    free: SimpleQueue[Listed] = SimpleQueue()
    for _ in range(num_workers):
        free.put(Listed(np.empty(room, np.int32), np.empty(room, magnitudes.numpy_dtype)))

    def classify(chunk: Chunk) -> _Classified | None:
        words, bits, listed = magnitudes.words(chunk), packed[chunk.name][chunk.bytes], free.get()
        try:
            num_above, num_inside, is_finite = kernels.classify(
                words, magnitudes.eligible(chunk), guess, bits, listed, magnitudes.infinity
            )
            inside = Listed(*(values[:num_inside].copy() for values in listed))
        finally:
            free.put(listed)
        refuse_not_finite(chunk, is_finite)
        return _Classified(num_above, inside) if num_inside <= room else None

    found = map_chunks(classify, chunks, num_workers)
    return None if None in found else [classified for classified in found if classified is not None]


def _choose_largest(
    listed: list[Listed], num_kept: int, kernels: Kernels, guess: tuple[int, int]
) -> Iterator[NDArray[np.bool_]]:
    """Yields for each chunk which of the listed are among the largest, of equal ones the first."""
    if num_kept == 0:
        yield from (np.zeros(len(patterns), np.bool_) for _, patterns in listed)
        return
    words = [torch.from_numpy(patterns) for _, patterns in listed]

    def count(bracket: Bracket) -> tuple[int, Counters]:
        bins = np.zeros(bracket.num_bins, np.int32)
        return sum(kernels.count_patterns(part, None, bracket, bins, guess[1] + 1)[0] for part in words), bins

    threshold = find_kth_largest(count, num_kept, least=guess[0], greatest=guess[1], num_bins=NUM_BINS)
    num_equal = num_kept - threshold.num_above
    for _, patterns in listed:
        chosen = patterns > threshold.value
        equal = np.flatnonzero(patterns == threshold.value)[:num_equal]
        num_equal -= len(equal)
        chosen[equal] = True
        yield chosen

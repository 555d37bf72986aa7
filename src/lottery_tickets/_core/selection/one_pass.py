"""Selecting in one look at each weight, where a guess of the threshold is right.

The guess is a bracket of patterns that a sample of the weights gives. What lies above it is kept, what lies below is
not; only the few weights inside it are listed, and among these the threshold is found.
"""

import math
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.selection.backends import Kernels, count_workers, refuse_not_finite
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes, map_chunks
from lottery_tickets._core.selection.ties import share_ties
from lottery_tickets._core.thresholds import Bracket, Counters, find_kth_largest

NUM_SAMPLED: Final = 1 << 18
NUM_SAMPLED_TOGETHER: Final = 1 << 16  # by all processes, who send each other what they sampled
NUM_SAMPLED_ON_DEVICE: Final = 1 << 20  # fewer weights in the bracket, because these travel to the CPU
NUM_SAMPLED_IN_FILES: Final = 1 << 20  # at most; fewer weights in the bracket, because of large files these are many
SHARE_SAMPLED: Final = 256  # of a file one weight in so many, but not fewer than a quarter of what is sampled in memory
NUM_BINS: Final = 1 << 12  # for what is listed: they stay in the cache
STANDARD_DEVIATIONS_AGAIN: Final = 10.0  # on the side where the threshold turned out to be
STANDARD_DEVIATIONS: Final = 2.5  # half the width of the bracket, in the rank of the sample; one guess in 80 is wrong
LARGEST_SHARE: Final = 16  # a chunk may have one in so many of its weights listed, which bounds the memory


class _Classified(NamedTuple):
    """How many weights a chunk has above the bracket, and those that it has inside."""

    num_above: int
    inside: Listed


@final
class MissedError(Exception):
    """The threshold is not where it was guessed to be.

    Attributes:
        side: 1 where it lies above the guess, -1 below; 0 where the guess was so wide that too many weights lay in it.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self.side = side

    def __str__(self) -> str:
        return "the threshold is not where a sample of the weights suggests"


def guess_bracket(magnitudes: Magnitudes, num_kept: int, deviations: float = STANDARD_DEVIATIONS) -> tuple[int, int]:
    """Returns patterns between which the least one that is kept probably lies, from a sample.

    Args:
        magnitudes: Of all weights.
        num_kept: How many are kept.
        deviations: Half the width of the bracket, in standard deviations of a rank of the sample.
    """
    sample = magnitudes.sample(_choose_size(magnitudes))
    size = len(sample)
    density = num_kept / magnitudes.num_eligible
    spread = 1 + math.ceil(deviations * math.sqrt(size * density * (1 - density)))
    rank = size - 1 - round(density * size)
    greatest = magnitudes.infinity - 1
    lo = int(sample[rank - spread]) if rank >= spread else 0
    hi = int(sample[rank + spread]) if rank + spread < size else greatest
    return min(lo, greatest), min(hi, greatest)


def _choose_size(magnitudes: Magnitudes) -> int:
    """Returns how many weights to look at for a guess."""
    if magnitudes.together.num_processes > 1:
        return NUM_SAMPLED_TOGETHER
    if not magnitudes.is_in_memory:
        return min(NUM_SAMPLED_IN_FILES, max(NUM_SAMPLED // 4, magnitudes.num_elements // SHARE_SAMPLED))
    return NUM_SAMPLED if magnitudes.is_on_cpu else NUM_SAMPLED_ON_DEVICE


def select_in_one_pass(
    magnitudes: Magnitudes, kernels: Kernels, num_kept: int, guess: tuple[int, int]
) -> dict[str, Tensor]:
    """Returns the packed bits of the `num_kept` largest.

    Args:
        magnitudes: Of all weights.
        kernels: What classifies.
        num_kept: How many are kept.
        guess: The least and the greatest pattern between which the threshold probably lies.

    Raises:
        MissedError: When the guess is wrong or too wide.
        ValueError: When a magnitude is NaN or infinite.
    """
    packed = {name: torch.empty(num_bytes(w.size), dtype=torch.uint8) for name, w in magnitudes.weights.items()}
    chunks = magnitudes.chunks()
    found: list[_Classified] = []

    def classify() -> NDArray[np.int64]:
        found.extend(_classify(magnitudes, kernels, guess, chunks, packed))
        return _count_found(magnitudes, chunks, found)

    num_above, num_inside = magnitudes.together.sum(2, classify)
    num_left = num_kept - int(num_above)
    if num_left < 0 or num_left > num_inside:
        raise MissedError(1 if num_left < 0 else -1)
    inside = {chunk: classified.inside for chunk, classified in zip(chunks, found, strict=True)}
    for chunk, chosen in _choose_largest(magnitudes, inside, num_left, kernels, guess):
        kernels.set_bits(packed[chunk.name][chunk.bytes], inside[chunk].positions, chosen)
    return packed


def _count_found(magnitudes: Magnitudes, chunks: list[Chunk], found: list[_Classified]) -> NDArray[np.int64]:
    """Returns how many weights that count here lie above the bracket, and how many inside."""
    counted = [each for chunk, each in zip(chunks, found, strict=True) if magnitudes.weights[chunk.name].is_counted]
    return np.array([sum(each.num_above for each in counted), sum(len(each.inside.patterns) for each in counted)])


def _classify(
    magnitudes: Magnitudes,
    kernels: Kernels,
    guess: tuple[int, int],
    chunks: list[Chunk],
    packed: dict[str, Tensor],
) -> list[_Classified]:
    num_workers = count_workers(magnitudes, kernels)
    room = max((chunk.stop - chunk.start for chunk in chunks), default=0) // LARGEST_SHARE + 1
    free: SimpleQueue[Listed] = SimpleQueue()
    for _ in range(num_workers):
        free.put(Listed(np.empty(room, np.int32), np.empty(room, magnitudes.numpy_dtype)))

    def classify(chunk: Chunk) -> _Classified:
        words, bits, listed = magnitudes.words(chunk), packed[chunk.name][chunk.bytes], free.get()
        try:
            num_above, num_inside, is_finite = kernels.classify(
                words, magnitudes.eligible(chunk), guess, bits, listed, magnitudes.infinity
            )
            inside = Listed(*(values[:num_inside].copy() for values in listed))
        finally:
            free.put(listed)
        refuse_not_finite(chunk, is_finite)
        if num_inside > room:
            raise MissedError(0)
        return _Classified(num_above, inside)

    return map_chunks(classify, chunks, num_workers)


def _choose_largest(
    magnitudes: Magnitudes, listed: dict[Chunk, Listed], num_kept: int, kernels: Kernels, guess: tuple[int, int]
) -> Iterator[tuple[Chunk, NDArray[np.bool_]]]:
    """Yields for each chunk which of the listed are among the largest, of equal ones the first."""
    weights = magnitudes.weights
    if num_kept == 0:
        yield from ((chunk, np.zeros(len(found.patterns), np.bool_)) for chunk, found in listed.items())
        return

    def count_here(bracket: Bracket) -> Counters:
        bins, above = np.zeros(bracket.num_bins, np.int32), 0
        for chunk, found in listed.items():
            if weights[chunk.name].is_counted:
                words = torch.from_numpy(found.patterns)
                above += kernels.count_patterns(words, None, bracket, bins, guess[1] + 1)[0]
        return np.concatenate([np.array([above]), bins])

    def count(bracket: Bracket) -> tuple[int, Counters]:
        counts = magnitudes.together.sum(1 + bracket.num_bins, lambda: count_here(bracket))
        return int(counts[0]), counts[1:]

    threshold = find_kth_largest(count, num_kept, least=guess[0], greatest=guess[1], num_bins=NUM_BINS)
    equal = {chunk: np.flatnonzero(found.patterns == threshold.value) for chunk, found in listed.items()}
    quotas = share_ties(
        weights,
        list(equal),
        [len(places) for places in equal.values()],
        num_kept - threshold.num_above,
        lambda chunk: chunk.start + listed[chunk].positions[equal[chunk]].astype(np.int64),
    )
    for chunk, found in listed.items():
        chosen = found.patterns > threshold.value
        chosen[equal[chunk][: quotas[chunk]]] = True
        yield chunk, chosen

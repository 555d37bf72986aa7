"""Keeping exactly n of many scores: the one selector that every mask comes from."""

import contextlib
import logging
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.selection.backends import Backend, Kernels, count_workers, kernels_for, refuse_not_finite
from lottery_tickets._core.selection.one_pass import (
    STANDARD_DEVIATIONS_AGAIN,
    MissedError,
    guess_bracket,
    select_in_one_pass,
)
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes, map_chunks
from lottery_tickets._core.selection.ties import share_ties
from lottery_tickets._core.thresholds import Bracket, Counters, Threshold, find_kth_largest
from lottery_tickets._core.weights import Weights

logger = logging.getLogger(__name__)

SMALLEST_TO_SAMPLE: Final = 1 << 21  # elements; below it, a sample costs more than the pass it saves


def select_largest(
    scores: Weights, num_kept: int, *, within: Mapping[str, Tensor] | None = None, backend: Backend | None = None
) -> dict[str, Tensor]:
    """Returns the packed bits of the `num_kept` largest magnitudes of all scores together.

    Magnitudes are compared exactly, and equal ones are kept in order of position: first weight first, then C order (the
    rule of jaxpruner, whose `top_k` keeps the lower index). So backend, chunks and threads do not change the result.

    Args:
        scores: Of any float dtypes, shapes, strides and devices; finite.
        num_kept: How many elements are kept, from 0 to the number of eligible ones.
        within: For each name the packed bits of the eligible elements; None: all are.
        backend: Which kernels count and pack; None: numba for large and numpy for small CPU tensors, torch for
            other devices. The bits are the same.

    Returns:
        For each name of n elements, 1-D uint8 on the CPU, ceil(n / 8) bytes.

    Raises:
        TypeError: When a score is not a float tensor.
        ValueError: When a score is NaN or infinite, `num_kept` is out of range, or `within` does not fit.

    Examples:
        >>> bits = select_largest(Weights.from_tensors({"a": torch.tensor([0.5, -2.0, 0.5, 1.0])}), 3)
        >>> f"{int(bits['a'][0]):04b}"[::-1]
        '1101'
    """
    magnitudes = Magnitudes(scores, within)
    if not 0 <= num_kept <= magnitudes.num_eligible:
        raise ValueError(f"num_kept must be from 0 to the {magnitudes.num_eligible} eligible elements, got {num_kept}")
    kernels = kernels_for(magnitudes, backend)
    if scores.num_weights >= SMALLEST_TO_SAMPLE and num_kept not in {0, magnitudes.num_eligible}:
        with contextlib.suppress(MissedError):
            return _select_by_guesses(magnitudes, kernels, num_kept)
    return _pack(magnitudes, kernels, find_threshold(magnitudes, num_kept, kernels), num_kept)


def _select_by_guesses(magnitudes: Magnitudes, kernels: Kernels, num_kept: int) -> dict[str, Tensor]:
    """Returns what `select_largest` does, from one pass; of files from two, where the first guess misses by little.

    Raises:
        MissedError: When that is not enough.
    """
    lo, hi = guess_bracket(magnitudes, num_kept)
    try:
        return select_in_one_pass(magnitudes, kernels, num_kept, (lo, hi))
    except MissedError as missed:
        if magnitudes.is_in_memory:  # counting and packing cost no more than such guesses
            raise
        logger.info("%s; the files are read again", missed)
        if not missed.side:
            raise
        is_above = missed.side > 0
    # Behind the block, because an exception keeps what the first pass has listed.
    least, greatest = guess_bracket(magnitudes, num_kept, STANDARD_DEVIATIONS_AGAIN)
    again = (hi + 1, max(greatest, hi + 1)) if is_above else (min(least, lo - 1), lo - 1)
    return select_in_one_pass(magnitudes, kernels, num_kept, again)


@final
class Ranking:
    """Scores in one order, from which the n largest are drawn for any n; a smaller draw is part of any larger one.

    The order is that of `select_largest`. What one pass over the scores has counted serves all draws.

    Args:
        scores: As for `select_largest`; not to be changed in between.

    Examples:
        >>> ranking = Ranking(Weights.from_tensors({"a": torch.tensor([0.5, -2.0, 0.5, 1.0])}))
        >>> [f"{int(bits):04b}"[::-1] for n in (1, 2, 3) for bits in ranking.keep(n).values()]
        ['0100', '0101', '1101']
    """

    def __init__(self, scores: Weights) -> None:
        self._magnitudes = Magnitudes(scores)
        self._kernels = kernels_for(self._magnitudes, None)
        self._counted: dict[Bracket, tuple[int, Counters]] = {}

    @property
    def num_scores(self) -> int:
        """How many scores there are."""
        return self._magnitudes.weights.num_weights

    def keep(self, num_kept: int, guess: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Returns the packed bits of the `num_kept` largest, see `select_largest`.

        Args:
            num_kept: How many, from none to all.
            guess: Bit patterns between which the smallest of them probably is; a wrong guess costs a pass, no more.
        """
        greatest = self._magnitudes.infinity - 1
        if num_kept in {0, self.num_scores}:
            threshold = find_threshold(self._magnitudes, num_kept, self._kernels)
        else:
            threshold = find_kth_largest(
                self._count, num_kept, least=0, greatest=greatest, num_bins=self._kernels.NUM_BINS, guess=guess
            )
        return _pack(self._magnitudes, self._kernels, threshold, num_kept)

    def _count(self, bracket: Bracket) -> tuple[int, Counters]:
        if bracket not in self._counted:
            self._counted[bracket] = _count_pass(self._magnitudes, self._kernels, bracket)
        return self._counted[bracket]


def find_threshold(magnitudes: Magnitudes, num_kept: int, kernels: Kernels) -> Threshold:
    """Returns the pattern of the least magnitude kept; checks that every magnitude is finite.

    When none or all are kept, the threshold is infinity's pattern or -1, which no finite magnitude equals.
    """

    def count(bracket: Bracket) -> tuple[int, Counters]:
        return _count_pass(magnitudes, kernels, bracket)

    if num_kept in {0, magnitudes.num_eligible}:
        _count_pass(magnitudes, kernels, _nothing(magnitudes))
        return Threshold(magnitudes.infinity if num_kept == 0 else -1, num_kept, 0)
    greatest = magnitudes.infinity - 1
    return find_kth_largest(count, num_kept, least=0, greatest=greatest, num_bins=kernels.NUM_BINS)


def check_finite(scores: Weights) -> None:
    """Raises the error of `select_largest` when a score is NaN or infinite."""
    magnitudes = Magnitudes(scores)
    _count_pass(magnitudes, kernels_for(magnitudes, None), _nothing(magnitudes))


def _nothing(magnitudes: Magnitudes) -> Bracket:
    """Returns a bracket that holds no finite magnitude, for a pass that only looks at the largest one."""
    return Bracket(magnitudes.infinity, magnitudes.infinity)


def _count_pass(magnitudes: Magnitudes, kernels: Kernels, bracket: Bracket) -> tuple[int, Counters]:
    counts = magnitudes.together.sum(1 + bracket.num_bins, lambda: _count_here(magnitudes, kernels, bracket))
    return int(counts[0]), counts[1:]


def _count_here(magnitudes: Magnitudes, kernels: Kernels, bracket: Bracket) -> Counters:
    """Returns how many magnitudes exceed the bracket, and behind it how many lie in each of its bins."""
    num_workers = count_workers(magnitudes, kernels)
    free: SimpleQueue[Counters] = SimpleQueue()
    # Of 4 bytes where they suffice, so that the counters of one thread fit its cache.
    dtype: type[np.signedinteger] = np.int32 if magnitudes.num_elements < np.iinfo(np.int32).max else np.int64
    histograms: list[Counters] = [np.zeros(bracket.num_bins, dtype) for _ in range(num_workers)]
    for histogram in histograms:
        free.put(histogram)

    def count(chunk: Chunk) -> int:
        bins = free.get()
        try:
            words, within = magnitudes.words(chunk), magnitudes.eligible(chunk)
            above, is_finite = kernels.count_patterns(words, within, bracket, bins, magnitudes.infinity)
        finally:
            free.put(bins)
        refuse_not_finite(chunk, is_finite)
        return above

    num_above = sum(map_chunks(count, magnitudes.counted_chunks(), num_workers))
    return np.concatenate([np.array([num_above]), sum(histograms[1:], start=histograms[0])])


def _pack(magnitudes: Magnitudes, kernels: Kernels, threshold: Threshold, num_kept: int) -> dict[str, Tensor]:
    packed = {
        name: torch.empty(num_bytes(weight.size), dtype=torch.uint8) for name, weight in magnitudes.weights.items()
    }
    num_equal_kept = num_kept - threshold.num_above
    # Mostly all or none of the ties are kept; then one comparison with a pattern is enough.
    keeps_all_equal = num_equal_kept == threshold.num_equal
    pattern = threshold.value - 1 if keeps_all_equal and threshold.num_equal else threshold.value

    def bits_of(chunk: Chunk) -> Tensor:
        return packed[chunk.name][chunk.bytes]

    def pack(chunk: Chunk) -> int:
        return kernels.pack_above(magnitudes.words(chunk), magnitudes.eligible(chunk), pattern, bits_of(chunk))

    chunks, num_workers = magnitudes.chunks(), count_workers(magnitudes, kernels)
    num_equal = map_chunks(pack, chunks, num_workers)
    if keeps_all_equal:
        return packed

    def find_equal(chunk: Chunk) -> NDArray[np.int64]:
        return magnitudes.find_equal(chunk, pattern)

    quotas = share_ties(magnitudes.weights, chunks, num_equal, num_equal_kept, find_equal)

    def keep_first_equal(chunk: Chunk) -> None:
        kernels.keep_first_equal(
            magnitudes.words(chunk), magnitudes.eligible(chunk), pattern, quotas[chunk], bits_of(chunk)
        )

    map_chunks(keep_first_equal, [chunk for chunk, quota in quotas.items() if quota], num_workers)
    return packed

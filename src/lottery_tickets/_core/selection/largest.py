"""Keeping exactly n of many scores: the one selector that every mask comes from."""

import math
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Final, Literal, Protocol, final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.kernels import selecting_numpy, selecting_reference
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes, map_chunks
from lottery_tickets._core.thresholds import Bracket, Counters, Threshold, find_kth_largest
from lottery_tickets._core.weights import Weights

SMALLEST_FOR_CPU_KERNEL: Final = (
    1 << 20
)  # elements; below it, numpy takes a few milliseconds and numba need not be imported
SMALLEST_TO_SAMPLE: Final = 1 << 21  # elements; below it, a sample costs more than the pass it saves
NUM_SAMPLED: Final = 3 << 16
STANDARD_DEVIATIONS: Final = 3  # half the width of the guessed bracket, in the sample's rank; misses in 3 of 1,000

Backend = Literal["reference", "small", "cpu"]


class Kernels(Protocol):
    """The hot loops of one backend; `kernels.selecting_reference` says what they compute."""

    NUM_BINS: int

    def count_patterns(self, words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters) -> tuple[int, int]:
        """Counts by bit pattern."""

    def pack_above(self, words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
        """Compares and packs."""

    def keep_first_equal(self, words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
        """Resolves ties."""

    def num_workers(self) -> int:
        """Says how many chunks to work on at a time."""


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

    Example:
        >>> bits = select_largest(Weights.from_tensors({"a": torch.tensor([0.5, -2.0, 0.5, 1.0])}), 3)
        >>> f"{int(bits['a'][0]):04b}"[::-1]
        '1101'
    """
    magnitudes = Magnitudes(scores, within)
    if not 0 <= num_kept <= magnitudes.num_eligible:
        raise ValueError(f"num_kept must be from 0 to the {magnitudes.num_eligible} eligible elements, got {num_kept}")
    kernels = _kernels_for(magnitudes, backend)
    threshold = find_threshold(magnitudes, num_kept, kernels)
    return _pack(magnitudes, kernels, threshold, num_kept)


@final
class Ranking:
    """Scores in one order, from which the n largest are drawn for any n: fewer are always among more.

    The order is that of `select_largest`. What one pass over the scores has counted serves all draws.

    Args:
        scores: As for `select_largest`; not to be changed in between.

    Example:
        >>> ranking = Ranking(Weights.from_tensors({"a": torch.tensor([0.5, -2.0, 0.5, 1.0])}))
        >>> [f"{int(bits):04b}"[::-1] for n in (1, 2, 3) for bits in ranking.keep(n).values()]
        ['0100', '0101', '1101']
    """

    def __init__(self, scores: Weights) -> None:
        self._magnitudes = Magnitudes(scores)
        self._kernels = _kernels_for(self._magnitudes, None)
        self._counted: dict[Bracket, tuple[int, Counters]] = {}

    @property
    def num_scores(self) -> int:
        """How many scores there are."""
        return self._magnitudes.num_elements

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
    return find_kth_largest(
        count,
        num_kept,
        least=0,
        greatest=magnitudes.infinity - 1,
        num_bins=kernels.NUM_BINS,
        guess=_guess_bracket(magnitudes, num_kept),
    )


def check_finite(scores: Weights) -> None:
    """Raises the error of `select_largest` when a score is NaN or infinite."""
    magnitudes = Magnitudes(scores)
    _count_pass(magnitudes, _kernels_for(magnitudes, None), _nothing(magnitudes))


def _nothing(magnitudes: Magnitudes) -> Bracket:
    """Returns a bracket that holds no finite magnitude, for a pass that only looks at the largest one."""
    return Bracket(magnitudes.infinity, magnitudes.infinity)


def _kernels_for(magnitudes: Magnitudes, backend: Backend | None) -> Kernels:
    if backend is None:
        is_large = magnitudes.num_elements >= SMALLEST_FOR_CPU_KERNEL
        backend = "reference" if not magnitudes.is_on_cpu else "cpu" if is_large else "small"
    if backend == "cpu":
        from lottery_tickets._core.kernels import selecting_cpu  # noqa: PLC0415 - numba takes half a second

        return selecting_cpu
    return selecting_numpy if backend == "small" else selecting_reference


def _guess_bracket(magnitudes: Magnitudes, num_kept: int) -> tuple[int, int] | None:
    if magnitudes.num_elements < SMALLEST_TO_SAMPLE:
        return None
    sample = magnitudes.sample(NUM_SAMPLED)
    size = len(sample)
    density = num_kept / magnitudes.num_eligible
    spread = 1 + math.ceil(STANDARD_DEVIATIONS * math.sqrt(size * density * (1 - density)))
    rank = size - 1 - round(density * size)
    greatest = magnitudes.infinity - 1
    lo = int(sample[rank - spread]) if rank >= spread else 0
    hi = int(sample[rank + spread]) if rank + spread < size else greatest
    return min(lo, greatest), min(hi, greatest)


def _count_pass(magnitudes: Magnitudes, kernels: Kernels, bracket: Bracket) -> tuple[int, Counters]:
    num_workers = kernels.num_workers()
    free: SimpleQueue[Counters] = SimpleQueue()
    dtype: type[np.signedinteger] = np.int32 if magnitudes.num_elements < np.iinfo(np.int32).max else np.int64
    histograms: list[Counters] = [np.zeros(bracket.num_bins, dtype) for _ in range(num_workers)]
    for histogram in histograms:
        free.put(histogram)

    def count(chunk: Chunk) -> int:
        bins = free.get()
        try:
            above, largest = kernels.count_patterns(magnitudes.words(chunk), magnitudes.eligible(chunk), bracket, bins)
        finally:
            free.put(bins)
        if largest >= magnitudes.infinity:
            raise ValueError(
                f"{chunk.name!r} must be finite to be ranked, but holds NaN or infinity; find where it diverged"
            )
        return above

    num_above = sum(map_chunks(count, magnitudes.chunks(), num_workers))
    return num_above, sum(histograms[1:], start=histograms[0])


def _pack(magnitudes: Magnitudes, kernels: Kernels, threshold: Threshold, num_kept: int) -> dict[str, Tensor]:
    packed = {
        name: torch.empty(num_bytes(weight.size), dtype=torch.uint8) for name, weight in magnitudes.weights.items()
    }
    num_equal_kept = num_kept - threshold.num_above
    # All or none of the ties are kept most often; then comparing says it all.
    keeps_all_equal = num_equal_kept == threshold.num_equal
    pattern = threshold.value - 1 if keeps_all_equal and threshold.num_equal else threshold.value

    def bits_of(chunk: Chunk) -> Tensor:
        return packed[chunk.name][chunk.start // 8 : num_bytes(chunk.stop)]

    def pack(chunk: Chunk) -> int:
        return kernels.pack_above(magnitudes.words(chunk), magnitudes.eligible(chunk), pattern, bits_of(chunk))

    chunks = magnitudes.chunks()
    num_equal = np.array(map_chunks(pack, chunks, kernels.num_workers()), dtype=np.int64)
    if keeps_all_equal:
        return packed
    quotas = np.clip(num_equal_kept - (num_equal.cumsum() - num_equal), 0, num_equal)
    quota_of = {chunk: int(quota) for chunk, quota in zip(chunks, quotas, strict=True) if quota}

    def keep_first_equal(chunk: Chunk) -> None:
        kernels.keep_first_equal(
            magnitudes.words(chunk), magnitudes.eligible(chunk), pattern, quota_of[chunk], bits_of(chunk)
        )

    map_chunks(keep_first_equal, quota_of, kernels.num_workers())
    return packed

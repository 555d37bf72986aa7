"""Magnitudes of weights at one moment, in 2 bytes a weight on the CPU, as codes that sort like them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any, Final, Literal, Protocol, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.kernels import ranking_reference
from lottery_tickets._core.kernels.trusted import SMALLEST_FOR_TRITON, find_trusted, load_loops
from lottery_tickets._core.selection.largest import check_finite
from lottery_tickets._core.selection.patterns import WEIGHTS_PER_CHUNK, WORDS, Chunk, Magnitudes, map_chunks
from lottery_tickets._core.sharding.shards import Shards
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.rank_tables import Counts, Ranks, RankTable, find_mid_ranks, find_moments, make_table

NUM_CODES: Final = 1 << 16
SHARE_OF_LAYER: Final = 1 << 44  # divided among a layer's weights; sums for 2^19 layers fit int64
OTHER_CODES_PER_ZERO_CODE: Final = 16  # at least, where there are other magnitudes
SMALLEST_FOR_CPU_KERNEL: Final = 1 << 20  # weights; below it, numpy takes milliseconds and numba need not be imported
SMALLEST_TO_COUNT: Final = 1 << 12  # weights; below it, sorting them takes less than a walk through 65,536 counters

Backend = Literal["reference", "cpu", "triton"]
Codes = NDArray[np.uint16]


@final
@dataclass(frozen=True, eq=False)
class Snapshot:
    """Magnitudes of weights at one moment.

    Args:
        codes: For each name an int16 tensor on the CPU, in the shape of what lies here of the weight; read as uint16,
            codes sort like the magnitudes of all weights together.
        shards: Where the weights lie, of a sharded model.
    """

    codes: Mapping[str, Tensor]
    shards: Shards | None = None

    @property
    def together(self) -> Together:
        """The processes that share the weights."""
        return ALONE if self.shards is None else self.shards.together

    def flatten_counted(self) -> dict[str, Codes]:
        """Returns the codes, 1-D, that count here."""
        shards = self.shards
        counted = [name for name in self.codes if shards is None or shards.pieces[name].is_counted]
        return {name: flatten(self.codes[name]) for name in counted}

    @cached_property
    def table(self) -> RankTable:
        """The rank of each code among all weights, over all processes; counted once."""
        flat = self.flatten_counted()
        size = sum(codes.size for codes in flat.values())
        if size <= WEIGHTS_PER_CHUNK:  # one walk through the counters, and not one a layer
            flat = {"all": join(flat)}
        kernels = kernels_for(size, None)
        return make_table(count_codes(flat, cut_codes(flat), kernels, kernels.num_workers(), self.together))

    @cached_property
    def ranks(self) -> tuple[Ranks, Mapping[str, Ranks]]:
        """The rank of each of few weights among all, layer after layer, and among those of its layer; found once."""
        flat = {name: flatten(codes) for name, codes in self.codes.items()}
        layers = {name: rank(codes) for name, codes in flat.items()}
        held = [name for name, codes in flat.items() if codes.size]
        return layers[held[0]] if len(held) == 1 else rank(join(flat)), layers


class Kernels(Protocol):
    """The hot loops of one backend; `kernels.ranking_reference` says what they compute."""

    def count_bins(self, words: Tensor, share: int, bins: NDArray[np.int64]) -> None:
        """Counts by bit pattern, weighted."""

    def encode(self, words: Tensor, table: NDArray[np.uint32], codes: Tensor) -> None:
        """Writes codes of float32."""

    def clear_signs(self, words: Tensor, codes: Tensor) -> int:
        """Writes codes of floats of 16 bits."""

    def count_codes(self, codes: NDArray[np.uint16], counts: NDArray[np.unsignedinteger]) -> None:
        """Counts codes."""

    def sum_products(
        self,
        earlier: NDArray[np.uint16],
        later: NDArray[np.uint16],
        earlier_ranks: NDArray[np.uint32],
        later_ranks: NDArray[np.uint32],
    ) -> int:
        """Sums products of ranks."""

    def num_workers(self) -> int:
        """Says how many chunks to work on at a time."""


def take_snapshot(weights: Weights, *, backend: Backend | None = None) -> Snapshot:
    """Returns the magnitudes of all weights as codes of 16 bits that sort like them.

    The codes of float16, bfloat16 or float8 weights, all of one of these, are their bits without the sign: exact. Other
    weights are read as float32 (float64 beyond its range are tied) and share 65,536 codes: each layer, however
    small, has the same number, spread so that about as many of its weights have each. Equal magnitudes have equal codes
    and a larger magnitude never has a lesser code, but magnitudes that are near to each other can share one. Too many
    do when many layers each hold magnitudes that agree in more than the first 8 bits of the mantissa.

    Args:
        weights: Of any float dtypes, shapes, strides and devices; finite.
        backend: Which kernels code; None: numba for many weights on the CPU, Triton for very many on a GPU where it can
            be trusted, torch otherwise. The codes are the same.

    Raises:
        TypeError: When a weight is not of a float dtype.
        ValueError: When a weight is NaN or infinite.

    Examples:
        >>> weights = {"fc.weight": torch.tensor([1.0, -2.0, 0.0], dtype=torch.bfloat16)}
        >>> snapshot = take_snapshot(Weights.from_tensors(weights))
        >>> snapshot.codes["fc.weight"].tolist()
        [16256, 16384, 0]
    """
    magnitudes = Magnitudes(weights)
    kernels = kernels_for(magnitudes.num_elements, backend or _choose_backend(magnitudes))
    codes = {name: torch.empty(shape, dtype=torch.int16) for name, shape in weights.shapes.items()}
    if WORDS[magnitudes.dtype] == torch.int16:
        _copy_patterns(magnitudes, kernels, codes)
    else:
        _encode_patterns(magnitudes, kernels, codes)
    return Snapshot(codes, weights.shards)


def kernels_for(num_weights: int, backend: Backend | None) -> Kernels:
    """Returns the kernels of a backend, or those that suit so many weights on the CPU."""
    if backend == "cpu" or (backend is None and num_weights >= SMALLEST_FOR_CPU_KERNEL):
        from lottery_tickets._core.kernels import ranking_cpu  # noqa: PLC0415 - numba takes half a second

        return ranking_cpu
    return cast("Kernels", load_loops("ranking")) if backend == "triton" else ranking_reference


def _choose_backend(magnitudes: Magnitudes) -> Backend | None:
    """Returns which kernels code weights; None where these are on the CPU, and their number decides."""
    if magnitudes.is_on_cpu:
        return None
    if magnitudes.num_elements < SMALLEST_FOR_TRITON:
        return "reference"
    # What is not of 16 bits is read as float32.
    dtype = magnitudes.dtype if WORDS[magnitudes.dtype] == torch.int16 else torch.float32
    are_trusted = all(find_trusted("ranking", device, dtype) for device in magnitudes.devices)
    return "triton" if are_trusted else "reference"


def sum_over_chunks(
    count: Callable[[Chunk, NDArray[Any]], object],
    chunks: Sequence[Chunk],
    dtype: type[np.integer[Any]],
    num_workers: int,
) -> NDArray[np.integer[Any]]:
    """Returns 65,536 counters: what `count` adds for all chunks, counted by each worker and then summed."""
    free: SimpleQueue[NDArray[np.integer[Any]]] = SimpleQueue()
    counters: list[NDArray[np.integer[Any]]] = [np.zeros(NUM_CODES, dtype) for _ in range(num_workers)]
    for counter in counters:
        free.put(counter)

    def count_chunk(chunk: Chunk) -> None:
        counter = free.get()
        try:
            count(chunk, counter)
        finally:
            free.put(counter)

    map_chunks(count_chunk, chunks, num_workers)
    return sum(counters[1:], start=counters[0])


def flatten(codes: Tensor) -> Codes:
    """Returns codes of one weight, 1-D."""
    flat: Codes = codes.reshape(-1).numpy().view(np.uint16)
    return flat


def join(side: Mapping[str, Codes]) -> Codes:
    """Returns the codes of all weights, one after the other."""
    return np.concatenate([np.empty(0, np.uint16), *side.values()])


def rank(codes: Codes) -> Ranks:
    """Returns the ranks of less than 2^20 codes among each other."""
    if codes.size < SMALLEST_TO_COUNT:
        _, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return Ranks(find_mid_ranks(counts)[places], find_moments(counts))
    counters = np.zeros(NUM_CODES, np.uint32)
    ranking_reference.count_codes(codes, counters)
    counts = counters.astype(np.int64)
    return Ranks(ranking_reference.look_up(find_mid_ranks(counts), codes), find_moments(counts))


def cut_codes(side: Mapping[str, Codes]) -> list[Chunk]:
    """Returns the chunks in which the codes of all weights are walked through."""
    return [
        Chunk(name, start, min(start + WEIGHTS_PER_CHUNK, codes.size))
        for name, codes in side.items()
        for start in range(0, codes.size, WEIGHTS_PER_CHUNK)
    ]


def count_codes(
    side: Mapping[str, Codes], chunks: Sequence[Chunk], kernels: Kernels, num_workers: int, together: Together = ALONE
) -> Counts:
    """Returns how many weights have each of the 65,536 codes, counted in these chunks, here and by other processes."""
    return together.sum(NUM_CODES, lambda: _count_codes_here(side, chunks, kernels, num_workers)).astype(np.int64)


def _count_codes_here(
    side: Mapping[str, Codes], chunks: Sequence[Chunk], kernels: Kernels, num_workers: int
) -> NDArray[np.int64]:

    def count(chunk: Chunk, counts: NDArray[Any]) -> None:
        kernels.count_codes(side[chunk.name][chunk.start : chunk.stop], counts)

    if kernels is ranking_reference:  # one worker, whose counters are the result
        return sum_over_chunks(count, chunks, np.int64, num_workers).astype(np.int64, copy=False)
    # Half the bytes stay nearer to the processor.
    dtype = np.uint32 if sum(codes.size for codes in side.values()) < 1 << 32 else np.uint64
    return sum_over_chunks(count, chunks, dtype, num_workers).astype(np.int64)


def _copy_patterns(magnitudes: Magnitudes, kernels: Kernels, codes: Mapping[str, Tensor]) -> None:
    def copy(chunk: Chunk) -> int:
        return kernels.clear_signs(magnitudes.words(chunk), codes[chunk.name].view(-1)[chunk.start : chunk.stop])

    greatest = max(map_chunks(copy, magnitudes.chunks(), kernels.num_workers()), default=0)
    if max(magnitudes.together.gather(lambda: greatest)) >= magnitudes.infinity:
        check_finite(magnitudes.weights)  # raises, and says which weight it is


def _encode_patterns(magnitudes: Magnitudes, kernels: Kernels, codes: Mapping[str, Tensor]) -> None:
    # Integers, so that neither chunks nor threads change a sum.
    shares = {name: SHARE_OF_LAYER // max(1, weight.whole_shape.numel()) for name, weight in magnitudes.weights.items()}

    def count(chunk: Chunk, bins: NDArray[np.int64]) -> None:
        kernels.count_bins(_single_words(magnitudes, chunk), shares[chunk.name], bins)

    def encode(chunk: Chunk) -> None:
        part = codes[chunk.name].view(-1)[chunk.start : chunk.stop]
        kernels.encode(_single_words(magnitudes, chunk), table, part)

    num_workers = kernels.num_workers()

    def count_here() -> Counts:
        return sum_over_chunks(count, magnitudes.counted_chunks(), np.int64, num_workers).astype(np.int64, copy=False)

    bins = magnitudes.together.sum(NUM_CODES, count_here)
    infinity = int(torch.tensor(torch.inf).view(torch.int32)) >> ranking_reference.LOW_BITS
    if bins[infinity:].any():
        check_finite(magnitudes.weights)  # raises, and says which weight it is, unless it is a float64 that was finite
    table = _share_codes(bins)
    map_chunks(encode, magnitudes.chunks(), num_workers)


def _single_words(magnitudes: Magnitudes, chunk: Chunk) -> Tensor:
    """Returns a chunk as float32 seen as int32."""
    words = magnitudes.words(chunk)
    # A float64 beyond float32's range becomes infinity, which sorts above all others and so has a code as they have.
    return words if magnitudes.dtype == torch.float32 else words.view(torch.float64).to(torch.float32).view(torch.int32)


def _share_codes(bins: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """Returns for each bin its first code, in the upper 16 bits, and its number of codes, in the lower."""
    shares = bins.astype(np.int64)
    others = int(shares[1:].sum())
    if others:
        # The first bin is that of zero, which needs one code however many weights are pruned.
        shares[0] = min(int(shares[0]), others // OTHER_CODES_PER_ZERO_CODE)
    reached = np.concatenate([[0], shares.cumsum()])
    # Rounded up, so that even what lies above all weights has a code below 65,536.
    first = reached // (int(reached[-1]) // NUM_CODES + 1)
    return ((first[:-1] << 16) | np.diff(first)).astype(np.uint32)

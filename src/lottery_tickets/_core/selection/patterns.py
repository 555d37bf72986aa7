"""Floats as integers that sort like their magnitudes, read in bounded chunks from any weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import count_bits, num_bytes
from lottery_tickets._core.weights import LARGEST_COPY, Weight, Weights

Result = TypeVar("Result")

WORDS: Final = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
# These are exact in float16, and are read as such.
QUARTER_FLOATS: Final = {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
WEIGHTS_PER_CHUNK: Final = 1 << 22
WEIGHTS_PER_DEVICE_CHUNK: Final = 1 << 25  # each chunk waits for the device several times
NEIGHBOURS: Final = 8  # sampled together, because reading one reads the line of the cache that holds them
NEIGHBOURS_IN_FILES: Final = 64  # likewise: the page
SAMPLERS: Final = 8  # likewise, where one waits for each piece of the sample
WEIGHTS_PER_COPIED_CHUNK: Final = LARGEST_COPY


@dataclass(frozen=True)
class Chunk:
    """Elements start to stop, in C order, of one weight of several; start is a multiple of 8."""

    name: str
    start: int
    stop: int

    @property
    def bytes(self) -> slice:
        """Where its bits stand among the packed bits of the weight."""
        return slice(self.start // 8, num_bytes(self.stop))


@final
class Magnitudes:
    """The elements of weights as one long list of patterns: integers that sort like the magnitudes.

    Args:
        weights: Any float dtypes (read in the least dtype that holds all of them exactly), shapes, strides and devices.
        within: For each name the packed bits of the eligible elements, or None: all are eligible.

    Raises:
        TypeError: When a weight is not of a float dtype.
        ValueError: When `within` does not fit the weights.
    """

    def __init__(self, weights: Weights, within: Mapping[str, Tensor] | None = None) -> None:
        self.weights = weights
        self.within = within
        self.dtype = _common_dtype(weights)
        self.infinity = int(torch.tensor(torch.inf, dtype=self.dtype).view(WORDS[self.dtype]))
        self.numpy_dtype = torch.empty(0, dtype=WORDS[self.dtype]).numpy().dtype
        self.together = weights.together
        self.num_elements = sum(weight.size for weight in weights.values())  # here
        self.num_eligible = weights.num_weights  # over all processes
        if within is not None:
            check_within(weights, within)
            self.num_eligible = sum(count_eligible(weights, within).values())

    @property
    def devices(self) -> set[torch.device]:
        """Where weights are."""
        return {weight.device for weight in self.weights.values()}

    @property
    def is_on_cpu(self) -> bool:
        """Whether all weights are."""
        return all(device.type == "cpu" for device in self.devices)

    @property
    def is_in_memory(self) -> bool:
        """Whether all weights are."""
        return all(weight.is_in_memory for weight in self.weights.values())

    def chunks(self) -> list[Chunk]:
        """Returns the blocks that cover all elements here, in order."""
        return [
            Chunk(name, start, stop)
            for name, weight in self.weights.items()
            for start, stop in weight.cut(self._find_chunk_size(weight))
        ]

    def counted_chunks(self) -> list[Chunk]:
        """Returns those of the blocks whose elements count here."""
        return [chunk for chunk in self.chunks() if self.weights[chunk.name].is_counted]

    def words(self, chunk: Chunk) -> Tensor:
        """Returns a chunk as 1-D signed integers; a view where the weight is contiguous and of the common dtype."""
        return self.to_words(self.weights[chunk.name].read(chunk.start, chunk.stop))

    def to_words(self, values: Tensor) -> Tensor:
        """Returns values of one of the weights as signed integers."""
        return values.to(self.dtype).view(WORDS[self.dtype])

    def eligible(self, chunk: Chunk) -> Tensor | None:
        """Returns the packed bits of the eligible elements of a chunk, or None where all are."""
        if self.within is None:
            return None
        return self.within[chunk.name][chunk.bytes]

    def find_equal(self, chunk: Chunk, pattern: int) -> NDArray[np.int64]:
        """Returns where the eligible elements of a chunk with this pattern stand, in C order of their weight."""
        words = self.words(chunk)
        found = ((words & torch.iinfo(words.dtype).max) == pattern).nonzero().view(-1).cpu().numpy()
        bits = self.eligible(chunk)
        if bits is not None:
            packed = bits.numpy()
            found = found[((packed[found >> 3] >> (found & 7)) & 1).astype(np.bool_)]
        return chunk.start + found.astype(np.int64)

    def pick(self, name: str, positions: NDArray[np.int64]) -> NDArray[np.signedinteger]:
        """Returns the patterns of one weight's elements at these positions."""
        words = self.to_words(self.weights[name].pick(positions)).cpu().numpy()
        patterns: NDArray[np.signedinteger] = words & np.iinfo(words.dtype).max
        return patterns

    def sample(self, num_sampled: int) -> NDArray[np.signedinteger]:
        """Returns the patterns, in ascending order, of the eligible among about so many elements, from all weights."""
        return np.sort(np.concatenate(self.together.gather(lambda: self._sample_here(num_sampled))))

    def _sample_here(self, num_sampled: int) -> NDArray[np.signedinteger]:
        counted = [weight for weight in self.weights.values() if weight.is_counted]
        none = np.empty(0, self.numpy_dtype)
        if self.within is None and all(weight.is_exchangeable for weight in counted):
            num_here = num_sampled // self.together.num_processes
            return np.concatenate([none, *self._take_first(counted, num_here)])
        neighbours = NEIGHBOURS if self.is_in_memory else NEIGHBOURS_IN_FILES
        step = max(1, self.weights.num_weights // num_sampled) * neighbours

        def sample(weight: Weight) -> NDArray[np.signedinteger]:
            return self._sample_weight(weight, step, neighbours)

        if self.is_in_memory:
            return np.concatenate([none, *map(sample, counted)])
        with ThreadPoolExecutor(SAMPLERS) as pool:
            return np.concatenate([none, *pool.map(sample, counted)])

    def _take_first(self, weights: Iterable[Weight], num_taken: int) -> Iterator[NDArray[np.signedinteger]]:
        for weight in weights:
            name = weight.name
            yield self.pick(name, np.arange(min(num_taken, weight.size)))
            num_taken = max(num_taken - weight.size, 0)

    def _sample_weight(self, weight: Weight, step: int, together: int) -> NDArray[np.signedinteger]:
        steps = np.arange(weight.size // step)
        # A jitter, because a plain stride can meet the same column of a matrix or the same tap of a kernel every time;
        # 40503 is 2^16 over the golden ratio, whose multiples spread evenly.
        first = steps * step + (steps * 40503) % (step - together + 1)
        positions = (first[:, None] + np.arange(together)).reshape(-1)
        if self.within is not None:
            bits = self.within[weight.name].numpy()
            positions = positions[((bits[positions >> 3] >> (positions & 7)) & 1).astype(np.bool_)]
        return self.pick(weight.name, positions)

    def _find_chunk_size(self, weight: Weight) -> int:
        if not weight.is_contiguous or weight.dtype != self.dtype:
            return WEIGHTS_PER_COPIED_CHUNK
        return WEIGHTS_PER_CHUNK if weight.device.type == "cpu" else WEIGHTS_PER_DEVICE_CHUNK


def map_chunks(function: Callable[[Chunk], Result], chunks: Iterable[Chunk], num_workers: int) -> list[Result]:
    """Returns the function's value for each chunk, in order, working on so many chunks at a time."""
    pieces = list(chunks)
    workers = min(num_workers, len(pieces))
    if workers <= 1:
        return [function(chunk) for chunk in pieces]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, pieces))


def count_eligible(weights: Weights, within: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns how many elements of each weight are eligible, over all processes, from packed bits of what lies here."""
    return weights.count({name: count_bits(within[name]) for name in weights})


def check_within(weights: Weights, within: Mapping[str, Tensor]) -> None:
    """Raises a ValueError when packed bits are not those of the weights' eligible elements."""
    if within.keys() != weights.keys():
        odd = sorted(within.keys() ^ weights.keys())
        raise ValueError(f"`within` must have the same names as the scores, but {odd} stand on one side only")
    for name, weight in weights.items():
        bits = within[name]
        if bits.dtype != torch.uint8 or bits.shape != (num_bytes(weight.size),):
            raise ValueError(
                f"`within` for {name!r} must be {num_bytes(weight.size)} bytes of packed bits, "
                f"got {bits.dtype} of shape {tuple(bits.shape)}; was it made for another model?"
            )


def _common_dtype(weights: Weights) -> torch.dtype:
    for name, weight in weights.items():
        if weight.dtype not in WORDS and weight.dtype not in QUARTER_FLOATS:
            raise TypeError(f"{name!r} must be of a float dtype to be ranked by magnitude, got {weight.dtype}")
    dtypes = {torch.float16 if weight.dtype in QUARTER_FLOATS else weight.dtype for weight in weights.values()}
    if len(dtypes) == 1:
        return dtypes.pop()
    return torch.float64 if torch.float64 in dtypes else torch.float32

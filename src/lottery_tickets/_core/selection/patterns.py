"""Floats as integers that sort like their magnitudes, read in bounded chunks from any list of tensors."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import count_bits, num_bytes

Result = TypeVar("Result")

WORDS: Final = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
# These are exact in float16, and are read as such.
QUARTER_FLOATS: Final = {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
WEIGHTS_PER_CHUNK: Final = 1 << 20
WEIGHTS_PER_COPIED_CHUNK: Final = 1 << 18


@dataclass(frozen=True)
class Chunk:
    """Elements start to stop, in C order, of one tensor of a list; start is a multiple of 8."""

    index: int
    start: int
    stop: int


@final
class Magnitudes:
    """A list of float tensors as one long list of patterns: integers that sort like the magnitudes.

    Args:
        tensors: Any float dtypes (read in the least dtype that holds all of them exactly), shapes, strides and devices.
        within: For each tensor the packed bits of its eligible elements, or None: all are eligible.
        names: What the tensors are called in error messages.

    Raises:
        TypeError: When a tensor is not of a float dtype.
        ValueError: When `within` does not fit the tensors.
    """

    def __init__(
        self, tensors: Sequence[Tensor], within: Sequence[Tensor] | None = None, names: Sequence[str] | None = None
    ) -> None:
        self.tensors = [tensor.detach() for tensor in tensors]
        self.names = list(names) if names is not None else [f"tensor {i}" for i in range(len(tensors))]
        self.within = None if within is None else list(within)
        self.dtype = _common_dtype(self.tensors, self.names)
        self.infinity = int(torch.tensor(torch.inf, dtype=self.dtype).view(WORDS[self.dtype]))
        self.num_eligible = self.num_elements
        if self.within is not None:
            self._check_within(self.within)
            self.num_eligible = sum(count_bits(bits) for bits in self.within)

    @property
    def num_elements(self) -> int:
        """How many elements the tensors have together."""
        return sum(tensor.numel() for tensor in self.tensors)

    def chunks(self) -> list[Chunk]:
        """Returns the pieces that cover all elements, in order."""
        return [
            Chunk(index, start, min(start + step, tensor.numel()))
            for index, tensor in enumerate(self.tensors)
            for step in [WEIGHTS_PER_CHUNK if self._is_plain(tensor) else WEIGHTS_PER_COPIED_CHUNK]
            for start in range(0, tensor.numel(), step)
        ]

    def words(self, chunk: Chunk) -> Tensor:
        """Returns a chunk as 1-D signed integers; a view where the tensor is contiguous and of the common dtype."""
        piece = slice_flat(self.tensors[chunk.index], chunk.start, chunk.stop)
        return piece.to(self.dtype).view(WORDS[self.dtype])

    def eligible(self, chunk: Chunk) -> Tensor | None:
        """Returns the packed bits of the eligible elements of a chunk, or None where all are."""
        if self.within is None:
            return None
        return self.within[chunk.index][chunk.start // 8 : num_bytes(chunk.stop)]

    def sample(self, num_sampled: int) -> NDArray[np.signedinteger]:
        """Returns the patterns, in ascending order, of the eligible among so many elements spread over all tensors."""
        stride = max(1, self.num_elements // num_sampled)
        return np.sort(np.concatenate([self._sample_tensor(index, stride) for index in range(len(self.tensors))]))

    def _sample_tensor(self, index: int, stride: int) -> NDArray[np.signedinteger]:
        tensor, words = self.tensors[index], WORDS[self.dtype]
        steps = np.arange(tensor.numel() // stride)
        # A jitter, because a plain stride can meet the same column of a matrix or the same tap of a kernel every time.
        positions = steps * stride + (steps * 40503) % stride
        if self._is_plain(tensor) and tensor.device.type == "cpu":
            # In numpy, because torch would wake all its threads for this little work.
            picked = tensor.view(-1).view(words).numpy()[positions]
        else:
            where = torch.from_numpy(positions).to(tensor.device)
            flat = tensor.is_contiguous()
            few = tensor.view(-1)[where] if flat else tensor[torch.unravel_index(where, tensor.shape)]
            picked = few.to(self.dtype).view(words).cpu().numpy()
        if self.within is not None:
            bits = self.within[index].numpy()
            picked = picked[((bits[positions >> 3] >> (positions & 7)) & 1).astype(np.bool_)]
        patterns: NDArray[np.signedinteger] = picked & np.iinfo(picked.dtype).max
        return patterns

    def _is_plain(self, tensor: Tensor) -> bool:
        return tensor.is_contiguous() and tensor.dtype == self.dtype

    def _check_within(self, within: Sequence[Tensor]) -> None:
        if len(within) != len(self.tensors):
            raise ValueError(f"`within` must have bits for each of {len(self.tensors)} tensors, got {len(within)}")
        for name, tensor, bits in zip(self.names, self.tensors, within, strict=True):
            if bits.dtype != torch.uint8 or bits.shape != (num_bytes(tensor.numel()),):
                raise ValueError(
                    f"`within` for {name!r} must be {num_bytes(tensor.numel())} bytes of packed bits, "
                    f"got {bits.dtype} of shape {tuple(bits.shape)}; was it made for another model?"
                )


def slice_flat(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Returns elements start to stop in C order as a 1-D contiguous tensor, copying little more than these."""
    if tensor.is_contiguous():
        return tensor.view(-1)[start:stop]
    if tensor.numel() <= WEIGHTS_PER_COPIED_CHUNK:
        return tensor.reshape(-1)[start:stop]
    row = tensor.numel() // len(tensor)
    first, last = start // row, -(-stop // row)
    if row <= WEIGHTS_PER_COPIED_CHUNK:
        return tensor[first:last].reshape(-1)[start - first * row : stop - first * row]
    parts = [slice_flat(tensor[i], max(start - i * row, 0), min(stop - i * row, row)) for i in range(first, last)]
    return torch.cat(parts)


def map_chunks(function: Callable[[Chunk], Result], chunks: Iterable[Chunk], num_workers: int) -> list[Result]:
    """Returns the function's value for each chunk, in order, working on so many chunks at a time."""
    pieces = list(chunks)
    workers = min(num_workers, len(pieces))
    if workers <= 1:
        return [function(chunk) for chunk in pieces]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, pieces))


def _common_dtype(tensors: Sequence[Tensor], names: Sequence[str]) -> torch.dtype:
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.dtype not in WORDS and tensor.dtype not in QUARTER_FLOATS:
            raise TypeError(f"{name!r} must be of a float dtype to be ranked by magnitude, got {tensor.dtype}")
    dtypes = {torch.float16 if tensor.dtype in QUARTER_FLOATS else tensor.dtype for tensor in tensors}
    if len(dtypes) == 1:
        return dtypes.pop()
    return torch.float64 if torch.float64 in dtypes else torch.float32

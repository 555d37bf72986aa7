"""Reading a safetensors file block by block, into memory of the reader's.

Files are read and not mapped: pages of a map count as the process's memory, and a file that is cut short while it is
mapped kills the process, where a read that comes up short is an error in words. Large ones are read past the system's
cache (O_DIRECT), which could not keep them and would drop what others have there.
"""

import contextlib
import os
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.tensor_files.buffers import take_buffer
from lottery_tickets._core.tensor_files.headers import Entry, read_header
from lottery_tickets._core.weights import Weight, slice_flat

PAGE: Final = 4096
BYTES_PER_BLOCK: Final = 1 << 23  # where a tensor is walked through


@final
class Shard:
    """An open safetensors file.

    Args:
        path: Of the file.
        is_large: Whether to read past the system's cache, where that is possible.

    Attributes:
        path: As given.
        is_large: As given.
        header: What the file says of itself.
        stamp: Its size and the time of its last change when it was opened.
        tell: Called with how many bytes were read, after each block, by any thread.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is anything else than a whole safetensors file.
    """

    def __init__(self, path: Path, *, is_large: bool = False) -> None:
        self.path = path
        self.header = read_header(path)
        self.is_large = is_large
        self._descriptor = open_file(path, os.O_RDONLY, is_large=is_large)
        weakref.finalize(self, os.close, self._descriptor)
        self.stamp = self._look()
        self.tell: Callable[[int], object] = lambda _num_bytes: None

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Returns the bytes from start to stop, in memory of their own.

        Raises:
            OSError: When the system cannot read them.
            ValueError: When the file has changed since it was opened.
        """
        first = start // PAGE * PAGE  # whole pages, as direct reading wants it
        buffer = take_buffer(-(-stop // PAGE) * PAGE - first)
        done = 0
        while done < stop - first:
            num_read = os.preadv(self._descriptor, [buffer[done:].data], first + done)
            if not num_read:
                break
            done += num_read
        if done < stop - first or self._look() != self.stamp:
            raise ValueError(f"{self.path} must stay as it is while it is read, but has changed; start again")
        self.tell(stop - start)
        return buffer[start - first : stop - first]

    def read_elements(self, entry: Entry, start: int, stop: int) -> Tensor:
        """Returns elements start to stop, in C order, of one of its tensors, 1-D, in memory of their own."""
        width = entry.dtype.itemsize
        block = self.read(entry.start + start * width, entry.start + stop * width)
        return torch.from_numpy(block if entry.is_aligned else block.copy()).view(entry.dtype)

    def walk(self, entry: Entry) -> Iterator[NDArray[np.uint8]]:
        """Yields the bytes of one of its tensors in blocks."""
        for start in range(entry.start, entry.stop, BYTES_PER_BLOCK):
            yield self.read(start, min(start + BYTES_PER_BLOCK, entry.stop))

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns


def open_file(path: Path, flags: int, *, is_large: bool) -> int:
    """Returns a descriptor; of a large file one that goes past the system's cache, where that is possible.

    Such a one takes whole pages only: places, lengths and memory are multiples of `PAGE`.
    """
    flags |= os.O_CLOEXEC
    if is_large:
        with contextlib.suppress(OSError, AttributeError):  # some file systems refuse, and macOS has other ways
            return os.open(path, flags | os.O_DIRECT, 0o666)
    descriptor = os.open(path, flags, 0o666)
    with contextlib.suppress(AttributeError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return descriptor


@final
class StoredWeight(Weight):
    """A weight in files, which is read where it is looked at.

    Args:
        name: Of the weight.
        parts: The tensors that it consists of, one behind the other in C order, of one dtype: mostly one.
        output_dims: As in `Weight`.
        shape: Of the weight; that of its one part when None.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[tuple[Shard, Entry]],
        output_dims: tuple[int, ...] = (0,),
        shape: torch.Size | None = None,
    ) -> None:
        self.name = name
        self.output_dims = output_dims
        self._parts = parts
        self._shape = parts[0][1].shape if shape is None else shape
        self._starts = [0, *accumulate(entry.size for _, entry in parts)]

    @property
    def tensor(self) -> Tensor:
        """The weight, read whole: there is no parameter that could be trained.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{self.name!r} lies in {self._parts[0][0].path} and in no model, so it cannot be trained or "
            "differentiated; load the model"
        )

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """As it is stored."""
        return self._parts[0][1].dtype

    @property
    def is_in_memory(self) -> bool:
        """No block is."""
        return False

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns elements start to stop; in another order than C all of the dimensions that change places are read."""
        dims = range(len(self.shape))
        moved = [place for place, dim in enumerate(order or dims) if place != dim]
        if order is None or not moved:
            return self._read(start, stop)
        inner = self.shape[min(moved) :].numel()  # elements of one block whose order is its own
        first, last = start // inner, -(-stop // inner)
        block = self._read(first * inner, last * inner)
        inner_order = [0, *(dim - min(moved) + 1 for dim in list(order)[min(moved) :])]
        turned = block.view(last - first, *self.shape[min(moved) :]).permute(*inner_order)
        return slice_flat(turned, start - first * inner, stop - first * inner)

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the elements at these positions; neighbours that follow each other are read at once."""
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        runs = np.split(positions, breaks) if len(positions) else []
        parts = [self._read(int(run[0]), int(run[-1]) + 1) for run in runs]
        return torch.cat(parts) if parts else torch.empty(0, dtype=self.dtype)

    def walk(self) -> Iterator[NDArray[np.uint8]]:
        """Yields the bytes of the weight in blocks."""
        for shard, entry in self._parts:
            yield from shard.walk(entry)

    def _read(self, start: int, stop: int) -> Tensor:
        """Returns elements start to stop in C order, from all parts that have some of them."""
        number = bisect_right(self._starts, start, hi=len(self._parts)) - 1
        blocks: list[Tensor] = []
        while start < stop or not blocks:
            (shard, entry), first = self._parts[number], self._starts[number]
            end = min(stop, first + entry.size)
            blocks.append(shard.read_elements(entry, start - first, end - first))
            start, number = end, number + 1
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

"""A copy of a checkpoint in which some elements are others: same files, same headers, tensor by tensor, resumable.

Everything is written into a folder aside, whose name says what of. At the end it is renamed; a reader sees all of the
new checkpoint or nothing. What a call that was stopped has written and flushed stays aside, and the same call goes on
from there.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
import weakref
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.files import (
    ASIDE,
    LOCK,
    exclusive_lock,
    flush_to_disk,
    is_leftover,
    make_folder,
    read_json,
    write_json,
)
from lottery_tickets._core.folders import hash_json
from lottery_tickets._core.reading import check_form
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.tensor_files.buffers import take_buffer
from lottery_tickets._core.tensor_files.shards import BYTES_PER_BLOCK, PAGE, Shard, open_file
from lottery_tickets._core.weights import INTEGERS_BY_BYTES, READERS
from lottery_tickets.checkpoints.layout import OTHER_FORMATS, Layout

BYTES_PER_FLUSH: Final = 1 << 30  # of one file, after which it is noted how far it has come
PROGRESS: Final = "progress.json"
WEIGHT_FORMATS: Final = {*OTHER_FORMATS, ".safetensors", ".h5", ".msgpack", ".onnx", ".ot"}


class Edit(ABC):
    """What becomes of the elements of one tensor."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """What tells it from other edits."""

    @abstractmethod
    def apply(self, words: Tensor, first: int) -> None:
        """Changes elements in place.

        Args:
            words: Of the tensor, as integers of their own width, 1-D.
            first: The number of the first of them in the tensor, in C order.
        """


@final
@dataclass(frozen=True, eq=False)
class Zeroing(Edit):
    """Sets to zero the elements whose bit is 0.

    Attributes:
        bits: Packed, of all elements.
    """

    bits: Tensor

    @property
    def digest(self) -> str:
        """Of the bits."""
        return hashlib.sha256(self.bits.numpy().data).hexdigest()

    def apply(self, words: Tensor, first: int) -> None:
        """Zeroes the pruned ones."""
        head = min(-first % 8, len(words))  # up to the next byte of the bits
        if head:
            kept = np.unpackbits(self.bits[first // 8 : first // 8 + 1].numpy(), bitorder="little")[first % 8 :][:head]
            words[:head].masked_fill_(torch.from_numpy(kept == 0), 0)
        rest = words[head:]
        zero_pruned_(rest, self.bits[(first + head) // 8 :][: num_bytes(len(rest))])


@final
@dataclass(frozen=True, eq=False)
class Replacement(Edit):
    """Sets some elements to other values.

    Attributes:
        places: Their numbers in C order, ascending.
        words: Their values as integers of their own width.
    """

    places: NDArray[np.int64]
    words: Tensor

    @property
    def digest(self) -> str:
        """Of the places and values."""
        hashed = hashlib.sha256(self.places.data)
        hashed.update(self.words.numpy().data)
        return hashed.hexdigest()

    def apply(self, words: Tensor, first: int) -> None:
        """Sets those that are among the words."""
        start, stop = np.searchsorted(self.places, [first, first + len(words)])
        words[torch.from_numpy(self.places[start:stop] - first)] = self.words[start:stop]


def write_edited_checkpoint(layout: Layout, edits: Mapping[str, Edit], path: Path) -> None:
    """Writes a checkpoint in which some tensors are edited, and all else is as before.

    Args:
        layout: Of the checkpoint.
        edits: By name of a tensor.
        path: A file, where the checkpoint is a file alone; else a folder. There must be nothing, or an empty folder.

    Raises:
        OSError: When the place cannot be written, or the disk is full; what was written stays aside.
        ValueError: When there is something at `path`, another process writes there, or the checkpoint changes while it
            is read.
    """
    _check_place(layout, path)
    aside = path.with_name(f".{path.name}.{_hash_task(layout, edits)}{ASIDE}")
    make_folder(aside)
    with exclusive_lock(aside / LOCK, of=path), _keeping_progress(aside, path):
        _remove_stale(path, aside)
        _check_room(layout, aside, path)
        for shard in layout.shards.values():
            _write_shard(shard, edits, aside)
        for other in layout.others:
            if other.suffix not in WEIGHT_FORMATS:
                shutil.copyfile(other, aside / other.name)
                flush_to_disk(aside / other.name)
        (aside / PROGRESS).unlink()
        (aside / LOCK).unlink()
        flush_to_disk(aside)
        _put_in_place(layout, aside, path)


def _hash_task(layout: Layout, edits: Mapping[str, Edit]) -> str:
    """Returns what tells one copy from others: that of other files, or with other edits."""
    stamps = {str(shard.path.absolute()): shard.stamp for shard in layout.shards.values()}
    hashes = {name: edit.digest for name, edit in edits.items()}
    return hash_json([stamps, hashes])[:16]


@contextlib.contextmanager
def _keeping_progress(aside: Path, path: Path) -> Iterator[None]:
    """Within the block a folder aside is filled; it stays when that fails, once there is something to go on from."""
    try:
        yield
    except BaseException as error:
        if not (aside / PROGRESS).exists():
            shutil.rmtree(aside)
        elif isinstance(error, OSError) and error.errno is not None:
            told = f"{os.strerror(error.errno)}; call again to go on, or delete {aside}"
            raise OSError(error.errno, told, str(path)) from error
        raise


def _write_shard(shard: Shard, edits: Mapping[str, Edit], aside: Path) -> None:
    """Writes what is not yet there of a shard."""
    file = shard.path.name
    done = _read_progress(aside)
    copy = _Copy(shard, edits, aside / file)
    with ThreadPoolExecutor(READERS) as pool:
        for group in _group(copy.cut(done.get(file, 0))):
            list(pool.map(copy.write, group))
            if group[-1][1] == shard.header.stop:
                os.ftruncate(copy.descriptor, shard.header.stop)
            os.fsync(copy.descriptor)
            write_json(aside / PROGRESS, {**done, file: group[-1][1]})


def _read_progress(aside: Path) -> dict[str, int]:
    """Returns up to which byte each file is written and on the disk."""
    if not (aside / PROGRESS).exists():
        return {}
    done = read_json(aside / PROGRESS)
    check_form(done, {...: int}, str(aside / PROGRESS))
    return {file: stop for file, stop in done.items() if (aside / file).stat().st_size >= stop}


@final
class _Copy:
    """A shard on its way into a new file of the same layout, block by block.

    Args:
        shard: The file.
        edits: By name of a tensor.
        path: Of the new file.

    Attributes:
        descriptor: Of the new file, which is closed with this object.

    Raises:
        ValueError: When a tensor lies so that its elements would be parted.
    """

    def __init__(self, shard: Shard, edits: Mapping[str, Edit], path: Path) -> None:
        self._shard = shard
        self._edits = edits
        entries = shard.header.entries
        self._edited = [name for name in entries if name in edits and entries[name].num_bytes]
        self._stops = [entries[name].stop for name in self._edited]
        # Early versions of safetensors did not fill their headers up; there, tensors lie well behind the header only.
        self._origin = 0 if all(entries[name].is_aligned for name in self._edited) else shard.header.start
        for name in self._edited:
            if (entries[name].start - self._origin) % entries[name].dtype.itemsize:
                raise ValueError(
                    f"{name!r} in {shard.path} must lie at a multiple of its elements' width, as safetensors lays it; "
                    "load the checkpoint and save it again"
                )
        is_large = shard.is_large and not self._origin
        self.descriptor = open_file(path, os.O_WRONLY | os.O_CREAT, is_large=is_large)
        weakref.finalize(self, os.close, self.descriptor)

    def cut(self, start: int) -> Iterator[tuple[int, int]]:
        """Yields the blocks of the file from a byte on: whole pages where possible, none of which parts an element."""
        stop = self._shard.header.stop
        while start < stop:
            end = self._origin if start < self._origin else min(start + BYTES_PER_BLOCK, stop)
            yield start, end
            start = end

    def write(self, block: tuple[int, int]) -> None:
        """Writes one block, edited."""
        start, stop = block
        values = self._shard.read(start, stop)
        if self._origin:
            values = values.copy()
        for name in self._edited[bisect_right(self._stops, start) :]:
            entry = self._shard.header.entries[name]
            if entry.start >= stop:
                break
            first, last = max(entry.start, start), min(entry.stop, stop)
            width = entry.dtype.itemsize
            part = torch.from_numpy(values[first - start : last - start]).view(INTEGERS_BY_BYTES[width])
            self._edits[name].apply(part, (first - entry.start) // width)
        whole = _pad(values) if stop == self._shard.header.stop else values
        done = 0
        while done < len(whole):
            done += os.pwrite(self.descriptor, whole[done:].data, start + done)


def _pad(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the last bytes of a file in whole pages; it is cut to its length in the end."""
    padded = take_buffer(-(-len(values) // PAGE) * PAGE)
    padded[: len(values)] = values
    return padded


def _group(blocks: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yields blocks of a gigabyte together."""
    while group := list(itertools.islice(blocks, BYTES_PER_FLUSH // BYTES_PER_BLOCK)):
        yield group


def _check_place(layout: Layout, path: Path) -> None:
    if path.is_symlink() or path.exists():
        is_free = layout.folder is not None and path.is_dir() and not any(path.iterdir())
        if not is_free:
            raise ValueError(f"{path} must be free for the new checkpoint, but there is something; name another place")


def _check_room(layout: Layout, aside: Path, path: Path) -> None:
    """Raises where the disk cannot hold what is still to be written."""
    total = sum(header.stop for header in layout.headers.values())
    there = sum(file.stat().st_size for file in aside.iterdir())
    free = shutil.disk_usage(aside).free
    if free < total - there:
        raise OSError(
            f"{path} needs {total - there:,} bytes more, but the disk has {free:,} left; free some, or name a place on "
            "another"
        )


def _remove_stale(path: Path, aside: Path) -> None:
    """Deletes what calls with other edits or weights have left for this place."""
    for stale in path.parent.iterdir():
        if stale != aside and stale.is_dir() and is_leftover(stale, path.name):
            try:
                with exclusive_lock(stale / LOCK):
                    shutil.rmtree(stale)
            except ValueError:  # in use
                continue


def _put_in_place(layout: Layout, aside: Path, path: Path) -> None:
    if layout.folder is not None:
        aside.replace(path)  # fails where somebody else has put something there meanwhile
    else:
        _check_place(layout, path)
        (aside / next(iter(layout.shards))).replace(path)
        aside.rmdir()
    flush_to_disk(path.parent)

"""A copy of a checkpoint with pruned weights set to zero: same files, same headers, tensor by tensor, resumable.

Everything is written into a folder aside, whose name says what of. At the end it is renamed; a reader sees all of the
new checkpoint or nothing. What a call that was stopped has written and flushed stays aside, and the same call goes on
from there.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor
from tqdm import tqdm

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
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.tensor_files.shards import Shard
from lottery_tickets._core.weights import READERS
from lottery_tickets.checkpoints.layout import OTHER_FORMATS, Layout

BYTES_PER_FLUSH: Final = 1 << 30
PROGRESS: Final = "progress.json"
WEIGHT_FORMATS: Final = {*OTHER_FORMATS, ".safetensors", ".h5", ".msgpack", ".onnx", ".ot"}


def write_pruned_checkpoint(
    layout: Layout,
    bits: Mapping[str, Tensor],
    path: Path,
    *,
    sha256: Mapping[str, str] | None = None,
    progress: bool = False,
) -> None:
    """Writes a checkpoint in which weights whose bit is 0 are zero, and all else is as before.

    Args:
        layout: Of the checkpoint.
        bits: By name of a tensor the packed bits of its elements.
        path: A file, where the checkpoint is a file alone; else a folder. There must be nothing, or an empty folder.
        sha256: By name of a tensor the hash that its bytes must have, in hexadecimal.
        progress: Whether to show a bar.

    Raises:
        OSError: When the place cannot be written, or the disk is full; what was written stays aside.
        ValueError: When there is something at `path`, another process writes there, a tensor has another hash, or the
            checkpoint changes while it is read.
    """
    _check_place(layout, path)
    stamps = {name: shard.stamp for name, shard in layout.shards.items()}
    hashes = {name: hashlib.sha256(packed.numpy().data).hexdigest() for name, packed in bits.items()}
    key = hash_json([str(layout.folder), stamps, hashes])[:16]
    aside = path.with_name(f".{path.name}.{key}{ASIDE}")
    make_folder(aside)
    with exclusive_lock(aside / LOCK, of=path):
        _remove_stale(path, aside)
        _check_room(layout, aside, path)
        _fill(layout, _Pruning(bits, sha256 or {}), aside, progress=progress)
        for other in layout.others:
            if other.suffix not in WEIGHT_FORMATS:
                shutil.copyfile(other, aside / other.name)
        (aside / PROGRESS).unlink()
        (aside / LOCK).unlink()
        flush_to_disk(aside)
        _put_in_place(layout, aside, path)


@final
@dataclass(frozen=True)
class _Pruning:
    """What is done to each tensor on its way."""

    bits: Mapping[str, Tensor]
    sha256: Mapping[str, str]

    def copy(self, name: str, shard: Shard, descriptor: int) -> int:
        """Writes one tensor to where it lies in its file; returns how many bytes that were."""
        entry, hashed = shard.header.entries[name], hashlib.sha256()
        for start, block in shard.walk(entry):
            if name in self.sha256:
                hashed.update(block.data)
            if name in self.bits:
                width = entry.dtype.itemsize
                first = start // width // 8  # blocks begin at whole bytes of bits
                values = torch.from_numpy(block).view(entry.dtype)
                zero_pruned_(values, self.bits[name][first : first + num_bytes(len(values))])
            done = 0
            while done < len(block):
                done += os.pwrite(descriptor, block[done:].data, entry.start + start + done)
        if name in self.sha256 and hashed.hexdigest() != self.sha256[name]:
            raise ValueError(
                f"{name!r} must be that of the base model, but has another hash; take the checkpoint that the ticket "
                "names, in its revision and dtype"
            )
        return entry.num_bytes


def _fill(layout: Layout, pruning: _Pruning, aside: Path, *, progress: bool) -> None:
    """Writes all shards that are not yet there."""
    done: dict[str, int] = read_json(aside / PROGRESS) if (aside / PROGRESS).exists() else {}
    total = sum(header.stop for header in layout.headers.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=not progress) as bar, ThreadPoolExecutor(READERS) as pool:
        for file, shard in layout.shards.items():
            names = [name for name, entry in shard.header.entries.items() if entry.start >= done.get(file, 0)]
            bar.update(done.get(file, 0))
            descriptor = os.open(aside / file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if file not in done:
                    bar.update(os.pwrite(descriptor, shard.read(0, shard.header.start).data, 0))
                flushed: Future[None] | None = None
                for group in _group(names, shard):
                    for written in pool.map(lambda name, s=shard, d=descriptor: pruning.copy(name, s, d), group):
                        bar.update(written)
                    # While the next group is written, this one goes to the disk.
                    if flushed is not None:
                        flushed.result()
                    last = shard.header.entries[group[-1]]
                    now = {**done, file: last.start + last.num_bytes}
                    flushed = pool.submit(_record, aside, descriptor, now)
                    done = now
                if flushed is not None:
                    flushed.result()
                done[file] = shard.header.stop
                _record(aside, descriptor, done)
            finally:
                os.close(descriptor)


def _record(aside: Path, descriptor: int, done: dict[str, int]) -> None:
    """Notes how far each file has come, once that is on the disk."""
    os.fsync(descriptor)
    write_json(aside / PROGRESS, done)


def _group(names: list[str], shard: Shard) -> Iterator[list[str]]:
    """Yields names of tensors that follow each other and have a gigabyte together."""
    group: list[str] = []
    size = 0
    for name in names:
        group.append(name)
        size += shard.header.entries[name].num_bytes
        if size >= BYTES_PER_FLUSH:
            yield group
            group, size = [], 0
    if group:
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
    """Deletes what calls with other masks or weights have left for this place."""
    for stale in path.parent.iterdir():
        if stale != aside and stale.is_dir() and is_leftover(stale, path.name):
            try:
                with exclusive_lock(stale / LOCK):
                    shutil.rmtree(stale)
            except ValueError:  # in use
                continue


def _put_in_place(layout: Layout, aside: Path, path: Path) -> None:
    if layout.folder is not None:
        aside.replace(path)
    else:
        (aside / next(iter(layout.shards))).replace(path)
        aside.rmdir()
    flush_to_disk(path.parent)

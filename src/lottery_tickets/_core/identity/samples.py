"""Digests of samples that are added up, so that neither order nor batches matter."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.batches.samples import find_tensors
from lottery_tickets._core.identity.values import Encoder, head_of, head_of_tensor, view_bytes

MOST_BYTES: Final = 1 << 24  # of a block of samples that is copied

_Column = bytes | Iterable[Any]  # what all samples of a batch have in common, or one piece for each


@final
class SampleSum:
    """The sum of the SHA-256 digests of samples modulo 2^256, and their number.

    Two sets of samples have the same sum when they hold the same samples as often, in whatever order; that others
    have it by chance is as unlikely as two equal digests.
    """

    def __init__(self) -> None:
        self.total = self.num_samples = 0

    def add(self, digests: Sequence[bytes]) -> None:
        """Adds samples.

        Args:
            digests: 32 bytes each.
        """
        self.total += sum(int.from_bytes(digest, "little") for digest in digests)
        self.num_samples += len(digests)

    def conclude(self, facts: bytes = b"") -> str:
        """Returns the SHA-256 of the sum, the number of samples and what is known besides, in hexadecimal."""
        total = (self.total % 2**256).to_bytes(32, "little")
        return hashlib.sha256(b"%d " % self.num_samples + total + facts).hexdigest()


def hash_sample(sample: object, unknown: list[str]) -> bytes:
    """Returns the SHA-256 of one sample: all that is in it together, 32 bytes.

    Args:
        sample: Tensors, arrays, numbers, texts, in dicts, tuples and lists.
        unknown: What could not be identified in it is added here.
    """
    return hashlib.sha256(_encode_alone(sample, unknown)).digest()


def hash_rows(tensors: Sequence[Tensor], positions: Sequence[int]) -> Iterator[bytes]:
    """Yields the SHA-256 of chosen samples of tensors, as `hash_sample` of the tuple of their rows.

    Args:
        tensors: One sample a row.
        positions: Which rows; a range with step 1 is read without a copy where the tensors lie in memory in order.
    """
    row_bytes = sum(tensor[:1].numel() * tensor.element_size() for tensor in tensors)
    size = max(1, MOST_BYTES // max(1, row_bytes))
    for start in range(0, len(positions), size):
        block = positions[start : start + size]
        is_whole = isinstance(block, range) and block.step == 1
        chosen = slice(block[0], block[-1] + 1) if is_whole else torch.as_tensor(block)
        yield from hash_batch(tuple(tensor[chosen] for tensor in tensors), [])


def hash_batch(batch: object, unknown: list[str]) -> Iterator[bytes]:
    """Yields the SHA-256 of the samples of a batch, as `hash_sample` of each; of the whole when it cannot be cut.

    A batch can be cut when all tensors in it have the same first dimension. Lists without tensors are cut where they
    have as many items; everything else goes with each sample.

    Args:
        batch: As `hash_sample` takes.
        unknown: As `hash_sample` takes.
    """
    sizes = {len(tensor) if tensor.ndim else None for tensor in find_tensors(batch)}
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None:
        yield hash_sample(batch, unknown)
        return
    columns: list[_Column] = []
    _cut_columns(batch, size, columns, unknown)
    repeated = (itertools.repeat(column, size) if isinstance(column, bytes) else column for column in columns)
    for row in zip(*repeated, strict=True):
        yield hashlib.sha256(b"".join(row)).digest()


def _cut_columns(batch: Any, size: int, columns: list[_Column], unknown: list[str]) -> None:  # noqa: ANN401 - any batch
    """Adds the columns of a batch, whose rows, joined, are the samples encoded one by one."""
    if isinstance(batch, Tensor) and batch.layout == torch.strided and not batch.is_meta and not batch.is_quantized:
        _add_column(columns, head_of_tensor(batch.dtype, batch.shape[1:]))
        columns.append(_list_rows(batch, size))
    elif isinstance(batch, Mapping) and all(type(key) is str for key in batch):
        _add_column(columns, head_of("mapping", len(batch)))
        for key in sorted(batch):
            _add_column(columns, _encode_alone(key, unknown))
            _cut_columns(batch[key], size, columns, unknown)
    elif isinstance(batch, tuple | list) and (len(batch) != size or any(True for _ in find_tensors(batch))):
        _add_column(columns, head_of("sequence", len(batch)))
        for item in batch:
            _cut_columns(item, size, columns, unknown)
    elif isinstance(batch, tuple | list | np.ndarray) and len(batch) == size:
        columns.append([_encode_alone(item, unknown) for item in batch])
    else:
        _add_column(columns, _encode_alone(batch, unknown))


def _add_column(columns: list[_Column], piece: bytes) -> None:
    """Adds what is the same for all samples, to the last column where that is the same for all too."""
    if columns and isinstance(columns[-1], bytes):
        columns[-1] += piece
    else:
        columns.append(piece)


def _encode_alone(value: object, unknown: list[str]) -> bytes:
    pieces: list[Any] = []
    encoder = Encoder(pieces.append)
    encoder.encode(value)
    if encoder.unknown:
        unknown.extend(name for name in encoder.unknown if name not in unknown)
    return b"".join(pieces)


def _list_rows(tensor: Tensor, size: int) -> Iterator[memoryview]:
    seen = view_bytes(tensor).data
    width = len(seen) // max(1, size)
    return (seen[width * row : width * (row + 1)] for row in range(size))

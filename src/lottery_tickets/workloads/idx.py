"""The IDX file format of MNIST and its kin: a magic number, the sizes of the dimensions, then bytes in C order.

The layout (Y. LeCun, C. Cortes, C. Burges, *The MNIST database*): two zero bytes, one byte naming the element type (8
is an unsigned byte), one byte with the number of dimensions, one big-endian 32-bit size for each dimension, the
elements.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lottery_tickets._core.reading import check_file

MAX_IDX_BYTES = 2**31
"""The most elements a file may announce; EMNIST, the largest data set in this format, holds 0.55 GB."""

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"
# DEFLATE cannot do better: a stored match of 258 bytes costs at least 2 bits (RFC 1951), so 258 * 8 / 2 to one.
_GZIP_MAX_RATIO = 1032


def read_idx(path: str | Path, *, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """Returns the unsigned bytes of an IDX file as an array of the shape the file states.

    The first two bytes tell whether the file is gzip-compressed, not its name. A file is read only after its header
    has been checked against the file's size, so a small file never costs much memory.

    Args:
        path: The file, plain or gzip-compressed.
        num_dimensions: How many dimensions the file must have: 3 for images, 1 for labels.

    Returns:
        A writable array, for instance (60000, 28, 28) for the training images of MNIST.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not IDX, has another element type or number of dimensions, is truncated or too long, or
            announces more than `MAX_IDX_BYTES`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     read_idx(path, num_dimensions=1)
        array([7, 8, 9], dtype=uint8)
    """
    path = Path(path)
    check_file(path, "an IDX file")
    num_file_bytes = path.stat().st_size
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        capacity = num_file_bytes * _GZIP_MAX_RATIO if compressed else num_file_bytes
        try:
            if not compressed:
                return _read_stream(file, path, num_dimensions, capacity)
            with gzip.GzipFile(fileobj=file) as stream:
                return _read_stream(stream, path, num_dimensions, capacity)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path} must be a whole gzip file, but reading it failed ({error}); fetch it again"
            ) from error


def _read_stream(
    stream: BinaryIO | gzip.GzipFile, path: Path, num_dimensions: int, capacity: int
) -> npt.NDArray[np.uint8]:
    """Returns the array in a stream of IDX bytes that is known to hold at most `capacity` bytes."""
    shape = _read_header(stream, path, num_dimensions)
    num_elements = math.prod(shape)
    if num_elements > MAX_IDX_BYTES:
        raise ValueError(
            f"{path} must announce at most {MAX_IDX_BYTES} bytes, got {num_elements}; is it the right file?"
        )
    if num_elements > capacity:
        raise ValueError(
            f"{path} must hold the {num_elements} bytes of its shape {shape}, but a file of its size can hold at most "
            f"{capacity}; fetch it again"
        )
    elements = np.frombuffer(bytearray(stream.read(num_elements)), dtype=np.uint8)
    if len(elements) < num_elements:
        raise ValueError(
            f"{path} must hold the {num_elements} bytes of its shape {shape}, but ends after {len(elements)}; "
            "fetch it again"
        )
    if stream.read(1):
        raise ValueError(
            f"{path} must end after the {num_elements} bytes of its shape {shape}, but goes on; fetch it again"
        )
    return elements.reshape(shape)


def _read_header(stream: BinaryIO | gzip.GzipFile, path: Path, num_dimensions: int) -> tuple[int, ...]:
    """Returns the shape stated by the header, after checking magic number, element type and number of dimensions."""
    expected = bytes([0, 0, _UNSIGNED_BYTE, num_dimensions])
    magic = stream.read(4)
    if magic != expected:
        raise ValueError(
            f"{path} must start with the IDX magic number {expected.hex(' ')} (unsigned bytes, {num_dimensions} "
            f"dimensions), got {magic.hex(' ') or 'an empty file'}; is it the right file?"
        )
    sizes = stream.read(4 * num_dimensions)
    if len(sizes) < 4 * num_dimensions:
        raise ValueError(
            f"{path} must state the sizes of {num_dimensions} dimensions, but ends after {4 + len(sizes)} bytes; "
            "fetch it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    if 0 in shape:
        raise ValueError(f"{path} must hold at least one element, but states the shape {shape}; is it the right file?")
    return shape

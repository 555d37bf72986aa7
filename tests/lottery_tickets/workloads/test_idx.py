"""Reading IDX files: what was written comes back, and nothing else is believed."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lottery_tickets.workloads.idx import MAX_IDX_BYTES, read_idx

from .files import idx_bytes

SMALL = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


@given(array=npst.arrays(np.uint8, npst.array_shapes(max_dims=4, max_side=9)), compressed=st.booleans())
def test_what_was_written_comes_back(
    array: np.ndarray, compressed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = idx_bytes(array)
    path = write(tmp_path_factory.mktemp("idx"), gzip.compress(content) if compressed else content)
    read = read_idx(path, num_dimensions=array.ndim)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.uint8
    assert read.flags.writeable


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("num_bytes", range(len(idx_bytes(SMALL))))
def test_every_truncation_is_refused(num_bytes: int, compressed: bool, tmp_path: Path) -> None:
    content = idx_bytes(SMALL)[:num_bytes]
    path = write(tmp_path, gzip.compress(content) if compressed else content)
    with pytest.raises(ValueError, match=r"is empty|magic number|must state the sizes|must hold the 24 bytes"):
        read_idx(path, num_dimensions=3)


def test_every_truncation_of_the_compressed_file_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(idx_bytes(SMALL))
    for num_bytes in range(len(content)):
        with pytest.raises(ValueError, match=r"is empty|whole gzip file|magic number|at most"):
            read_idx(write(tmp_path, content[:num_bytes]), num_dimensions=3)


@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_after_the_end_are_refused(compressed: bool, tmp_path: Path) -> None:
    content = idx_bytes(SMALL) + b"\0"
    path = write(tmp_path, gzip.compress(content) if compressed else content)
    with pytest.raises(ValueError, match="must end after the 24 bytes"):
        read_idx(path, num_dimensions=3)


def test_bytes_after_the_gzip_member_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(idx_bytes(SMALL)) + b"more")
    with pytest.raises(ValueError, match="whole gzip file"):
        read_idx(path, num_dimensions=3)


def test_no_flipped_bit_of_a_compressed_file_changes_the_array_unnoticed(tmp_path: Path) -> None:
    content = gzip.compress(idx_bytes(SMALL), mtime=0)
    num_refused = 0
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read = read_idx(write(tmp_path, bytes(changed)), num_dimensions=3)
        except ValueError:
            num_refused += 1
        else:
            np.testing.assert_array_equal(read, SMALL)
    # Flags, time, level and system stand in the header, and most of their bits mean nothing.
    assert num_refused > 8 * (len(content) - 8)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(bytes([0, 0, 9, 3]), "got 00 00 09 03", id="signed bytes"),
        pytest.param(bytes([0, 0, 13, 3]), "got 00 00 0d 03", id="floats"),
        pytest.param(bytes([0, 0, 8, 1]), "got 00 00 08 01", id="labels for images"),
        pytest.param(bytes([1, 0, 8, 3]), "got 01 00 08 03", id="not zero"),
        pytest.param(b"\x89PNG", "got 89 50 4e 47", id="a picture"),
    ],
)
def test_a_foreign_magic_number_is_refused(head: bytes, match: str, tmp_path: Path) -> None:
    path = write(tmp_path, head + idx_bytes(SMALL)[4:] if head else b"")
    with pytest.raises(ValueError, match=match):
        read_idx(path, num_dimensions=3)


def test_a_dimension_of_size_zero_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, idx_bytes(np.empty((0, 3, 4), np.uint8)))
    with pytest.raises(ValueError, match="at least one element"):
        read_idx(path, num_dimensions=3)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((2**32 - 1,) * 3, f"at most {MAX_IDX_BYTES} bytes"),
        ((MAX_IDX_BYTES // 4, 2, 2), "a file of its size can hold at most"),
    ],
)
def test_a_small_file_that_announces_much_is_refused_unread(
    shape: tuple[int, ...], match: str, compressed: bool, tmp_path: Path
) -> None:
    content = bytes([0, 0, 8, 3]) + np.array(shape, ">u4").tobytes()
    path = write(tmp_path, gzip.compress(content) if compressed else content)
    with pytest.raises(ValueError, match=match):
        read_idx(path, num_dimensions=3)


def test_a_highly_compressed_file_is_still_read(tmp_path: Path) -> None:
    zeros = np.zeros((100, 200, 200), np.uint8)
    content = gzip.compress(idx_bytes(zeros))
    assert len(content) < zeros.size / 900
    assert read_idx(write(tmp_path, content), num_dimensions=3).shape == zeros.shape


@given(content=st.binary(max_size=64), num_dimensions=st.integers(1, 4), head=st.sampled_from([b"", b"\x1f\x8b"]))
def test_no_bytes_whatever_raise_anything_but_a_value_error(
    content: bytes, num_dimensions: int, head: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("idx"), head + content)
    try:
        read = read_idx(path, num_dimensions=num_dimensions)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 - most contents are refused, none must be
    else:
        assert read.size == math.prod(read.shape) == len(content) - 4 - 4 * num_dimensions


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent", num_dimensions=1)

"""Headers of safetensors files against the library's own, and headers that lie."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lottery_tickets._core.tensor_files.headers import DTYPES, read_header
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors

NAMES = st.text(st.characters(categories=None, exclude_categories=["Cs"]), max_size=6)


@given(
    shapes=st.dictionaries(
        NAMES.filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3)),
        max_size=6,
    ),
    text=NAMES,
)
@settings(max_examples=60, deadline=None)
def test_files_are_byte_for_byte_those_of_safetensors(
    shapes: dict[str, tuple[str, list[int]]], text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("headers")
    tensors = {
        name: torch.randint(0, 2, shape, dtype=torch.uint8).to(DTYPES[dtype]) for name, (dtype, shape) in shapes.items()
    }
    write_tensors(folder / "ours", tensors, {"about": text})
    save_file(tensors, folder / "theirs", {"about": text})
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    header = read_header(folder / "ours")
    assert header.metadata == {"about": text}
    assert {name: (entry.dtype, entry.shape) for name, entry in header.entries.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()
    }
    assert header.stop == (folder / "ours").stat().st_size


def test_tensors_that_share_memory_or_are_no_dense_ones(tmp_path: Path) -> None:
    tensor = torch.randn(3, 4)
    write_tensors(tmp_path / "a", {"a": tensor, "b": tensor, "c": tensor.t()}, {})
    assert torch.equal(read_tensors(tmp_path / "a")[0]["c"], tensor.t())
    for odd in (torch.ones(2, dtype=torch.complex128), torch.ones(2, device="meta"), torch.ones(2, 2).to_sparse()):
        with pytest.raises(ValueError, match="odd must be a dense tensor with values"):
            write_tensors(tmp_path / "b", {"odd": odd}, {})
    assert not (tmp_path / "b").exists()


def lie(path: Path, entry: dict[str, object]) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **entry}}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [2, 3]},
        {"shape": [-2, -2]},
        {"shape": [2**62, 2**62]},
        {"shape": "2x2"},
        {"data_offsets": [0, 32]},
        {"data_offsets": [8, 24]},
        {"data_offsets": [16, 0]},
        {"data_offsets": [-16, 0]},
        {"data_offsets": [0]},
        {"dtype": "F33"},
        {"dtype": None},
    ],
)
def test_headers_that_lie_are_refused_by_the_name_of_the_file(entry: dict[str, object], tmp_path: Path) -> None:
    lie(tmp_path / "a.safetensors", {})
    assert read_header(tmp_path / "a.safetensors").entries["a"].shape == (2, 2)
    lie(tmp_path / "a.safetensors", entry)
    with pytest.raises(ValueError, match=r"a\.safetensors must be a whole safetensors file"):
        read_header(tmp_path / "a.safetensors")

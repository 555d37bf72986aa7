"""A mask's file gives back the very same mask, or is refused."""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import Mask
from lottery_tickets.masks.mask_file import METADATA_KEY
from tests.damaged_files import cut, flip_each_bit, flip_some
from tests.lottery_tickets.masks.drawn import bits, equal, make_tensors


@given(make_tensors())
@settings(max_examples=30, deadline=None)
def test_files_keep_names_order_shapes_bits_and_provenance(masks: list[dict[str, Tensor]]) -> None:
    mask = Mask.from_tensors(masks[0], {"method": "by hand", "seed": 3, "of": {"é": [1.5, None, True]}})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "mask.safetensors"
        mask.save(path)
        loaded = Mask.load(str(path))
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert equal(loaded, mask)
    assert loaded.provenance == mask.provenance


def save_example(path: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layer.{i}": torch.rand(7, i, generator=generator) < 0.5 for i in (3, 1, 2, 40, 5)}
    Mask.from_tensors(tensors, {"seed": 1, "method": "by hand", "scope": "global"}).save(path)


def test_equal_masks_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """The hash maps in which safetensors keeps metadata have another order in each process."""
    paths = [str(tmp_path / str(number)) for number in range(5)]
    for path in paths[1:]:
        save_example(path)
    code = "import sys; from tests.lottery_tickets.masks.test_mask_files import save_example; save_example(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, paths[0]], check=True, cwd=Path(__file__).parents[3])
    assert len({Path(path).read_bytes() for path in paths}) == 1


@pytest.mark.parametrize("provenance", [{"loss": float("nan")}, {"tensor": torch.ones(1)}])
def test_provenance_that_json_lacks_is_refused_and_nothing_is_lost(tmp_path: Path, provenance: dict[str, Any]) -> None:
    path = tmp_path / "mask.safetensors"
    old = Mask.from_tensors({"w": torch.eye(2)})
    old.save(path)
    with pytest.raises((ValueError, TypeError), match="JSON"):
        Mask.from_tensors({"w": torch.ones(2, 2)}, provenance).save(path)
    assert Mask.load(path) == old
    assert list(tmp_path.iterdir()) == [path]


MASK = Mask.from_tensors({"a.weight": torch.eye(5), "b": torch.ones(3), "c": torch.zeros(0)}, {"seed": 1})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("mask") / "mask.safetensors"
    MASK.save(path)
    return path.read_bytes()


def check_refused_or_same(content: bytes) -> bool:
    """Whether a file of this content is refused by a ValueError that names it; else it must hold the very same mask."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "altered.safetensors"
        path.write_bytes(content)
        try:
            loaded = Mask.load(path)
        except ValueError as error:
            assert str(path) in str(error), f"the message does not name the file: {error}"  # noqa: PT017 - other bytes load
            return True
    assert equal(loaded, MASK)
    assert loaded.provenance == MASK.provenance
    return False


def test_a_truncated_file_is_refused_at_every_length(saved: bytes) -> None:
    assert all(map(check_refused_or_same, cut(saved)))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_flipped_bytes_are_refused_or_harmless(saved: bytes, data: st.DataObject) -> None:
    check_refused_or_same(flip_some(saved, data))


def test_every_flipped_bit_of_the_bits_is_refused(saved: bytes) -> None:
    assert all(map(check_refused_or_same, flip_each_bit(saved)))


def test_parameters_may_be_called_as_the_parts_of_a_ticket_are(tmp_path: Path) -> None:
    mask = Mask.from_tensors({"mask.weight": torch.eye(3), "state.weight": torch.ones(2)})
    mask.save(tmp_path / "mask.safetensors")
    assert Mask.load(tmp_path / "mask.safetensors") == mask


def write_foreign(path: Path, label: object) -> None:
    metadata = None if label is None else {METADATA_KEY: label if isinstance(label, str) else json.dumps(label)}
    safetensors.torch.save_file({"w": bits(1)}, path, metadata)


FOREIGN: dict[str, object] = {
    "no metadata": None,
    "no JSON": "{",
    "deep JSON": "[" * 100_000,
    "NaN": "NaN",
    "a number": 1,
    "a list": [],
    "an empty object": {},
    "another format": {"format": "lottery-tickets mask 9", "content": "{}", "sha256": ""},
    "content no text": {"format": "lottery-tickets mask 1", "content": 1, "sha256": ""},
    "content no JSON": {"format": "lottery-tickets mask 1", "content": "{", "sha256": ""},
    "no shapes": {"format": "lottery-tickets mask 1", "content": "{}", "sha256": ""},
    "shapes a list": {"format": "lottery-tickets mask 1", "content": '{"shapes": [], "provenance": {}}', "sha256": ""},
    "a shape of text": {
        "format": "lottery-tickets mask 1",
        "content": '{"shapes": {"w": ["8"]}, "provenance": {}}',
        "sha256": "",
    },
    "a negative shape": {
        "format": "lottery-tickets mask 1",
        "content": '{"shapes": {"w": [-8]}, "provenance": {}}',
        "sha256": "",
    },
    "a huge shape": {
        "format": "lottery-tickets mask 1",
        "content": '{"shapes": {"w": [4611686018427387904, 8]}, "provenance": {}}',
        "sha256": "",
    },
    "a shape beyond 64 bits": {
        "format": "lottery-tickets mask 1",
        "content": '{"shapes": {"w": [1e400, 36893488147419103232]}, "provenance": {}}',
        "sha256": "",
    },
    "provenance a number": {
        "format": "lottery-tickets mask 1",
        "content": '{"shapes": {"w": [8]}, "provenance": 3}',
        "sha256": "",
    },
    "another digest": {
        "format": "lottery-tickets mask 1",
        "content": '{"shapes": {"w": [8]}, "provenance": {}}',
        "sha256": "0" * 64,
    },
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_metadata_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "foreign.safetensors"
    write_foreign(path, FOREIGN[case])
    with pytest.raises(ValueError, match=r"foreign\.safetensors must"):
        Mask.load(path)


# Shapes that torch.Size takes; with the digest that belongs to them, so that nothing but the shape speaks against them.
IMPOSSIBLE = {
    "two negative sizes": ([-2, -4], 1),
    "minus one and minus eight": ([-1, -8], 1),
    "one negative size": ([-8, 1], 0),
    "2^64 weights": ([2**32, 2**32], 0),
    "2^65 weights": ([2**62, 4, 2], 0),
    "2^63 weights": ([2**62, 2], 0),
    "a size beyond 64 bits": ([10**30], 0),
    "nothing times a size beyond 64 bits": ([0, 10**30], 0),
    "a boolean": ([True, 8], 1),
    "a fraction": ([2.0, 4.0], 1),
    "text": ("24", 1),
}


def write_forged(path: Path, content: str, num_bytes: int) -> None:
    held = {"w": torch.zeros(num_bytes, dtype=torch.uint8)}
    digest = hashlib.sha256(content.encode() + bytes(num_bytes)).hexdigest()
    label = {"format": "lottery-tickets mask 1", "content": content, "sha256": digest}
    safetensors.torch.save_file(held, path, {METADATA_KEY: json.dumps(label)})


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_shapes_that_no_tensor_has_are_refused(tmp_path: Path, case: str) -> None:
    shape, num_bytes = IMPOSSIBLE[case]
    path = tmp_path / "forged.safetensors"
    write_forged(path, json.dumps({"shapes": {"w": shape}, "provenance": {}}), num_bytes)
    with pytest.raises(
        ValueError, match=r"forged\.safetensors must hold a mask, .*(the shape of 'w' must be of integers|shapes\.w)"
    ):
        Mask.load(path)
    with pytest.raises(ValueError, match="the shape of 'w' must be of integers from 0 on"):
        Mask({"w": torch.zeros(num_bytes, dtype=torch.uint8)}, {"w": shape})  # type: ignore[dict-item] # on purpose


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1e999", "1e999 is not allowed"),
        ("NaN", "NaN is not allowed"),
        ("[" * 10**5 + "]" * 10**5, "nested too deeply"),
    ],
)
def test_provenance_that_is_no_json_is_refused(tmp_path: Path, value: str, words: str) -> None:
    path = tmp_path / "forged.safetensors"
    write_forged(path, f'{{"shapes": {{"w": [8]}}, "provenance": {{"a": {value}}}}}', 1)
    with pytest.raises(ValueError, match=rf"forged\.safetensors must hold a mask, .*{words}"):
        Mask.load(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"PK\x03\x04 a zip", b"{}"])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="foreign must be a whole safetensors file"):
        Mask.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, error, reason in (
        (tmp_path, IsADirectoryError, "is a folder"),
        (tmp_path / "missing", FileNotFoundError, "there is no such file"),
        (tmp_path / "missing" / "missing", FileNotFoundError, "there is no such file"),
        ("not\0a path", ValueError, "is no path"),
    ):
        with pytest.raises(error, match=f"must be a whole safetensors file, but {reason}"):
            Mask.load(path)

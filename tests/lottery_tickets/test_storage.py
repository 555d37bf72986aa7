"""Results come back from disk as they were said, or are refused; a write that fails loses nothing."""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import Mask, load_results, save_results
from lottery_tickets._core import files
from lottery_tickets._core.encoding import OWN_KEYS, QUANTILES, summarise_tensor
from lottery_tickets._core.files import exclusive_lock, hash_file, write_json, write_whole
from lottery_tickets._core.states import hash_state
from lottery_tickets.scores.importance import Importance
from lottery_tickets.storage import KeptState

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
KEYS = st.text().filter(lambda key: key not in OWN_KEYS)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=10)
MASK = Mask.from_tensors({"w": torch.eye(3)}, {"seed": 1})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


@given(results=st.dictionaries(KEYS, VALUES))
@settings(max_examples=50, deadline=None)
def test_json_values_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, results: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("results") / "results.json"
    save_results(results, path)
    assert load_results(path) == results


@pytest.mark.parametrize("kind", ["mask", "state"])
def test_the_keys_of_files_are_refused_before_anything_is_written(path: Path, kind: str) -> None:
    with pytest.raises(
        ValueError, match=f"results must not use the key '{kind}_file', which names a {kind}'s file, but /a/0"
    ):
        save_results({"a": [{f"{kind}_file": None}]}, path)
    assert not path.exists()


def test_tuples_paths_and_masks(path: Path) -> None:
    save_results({"pair": (1, 2), "path": Path("a/b"), "masks": [MASK, {"final": ~MASK}]}, path)
    loaded = load_results(path)
    assert (loaded["pair"], loaded["path"]) == ([1, 2], "a/b")
    assert loaded["masks"] == [MASK, {"final": ~MASK}]
    assert loaded["masks"][0].provenance == {"seed": 1}
    assert len(list(path.parent.glob("results.*.mask.safetensors"))) == 2


def test_a_state_that_is_kept_comes_back_bit_for_bit(path: Path) -> None:
    state = {"w": torch.tensor([math.nan, -0.0, 1e-45]), "b": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    save_results({"runs": [{"rewind_state": KeptState(state), "mask": MASK}]}, path)
    loaded = load_results(path)["runs"][0]
    assert hash_state(loaded["rewind_state"]) == hash_state(state)
    assert loaded["rewind_state"] == KeptState(state)
    assert loaded["rewind_state"] != KeptState({**state, "n": torch.tensor(4)})
    assert loaded["mask"] == MASK
    save_results(loaded, path.with_name("again.json"))
    assert hash_state(load_results(path.with_name("again.json"))["rewind_state"]) == hash_state(state)


def test_masks_under_names_that_look_alike_stay_apart(path: Path) -> None:
    results = {"a/b": MASK, "a": {"b": ~MASK}, "a.b": MASK & ~MASK, "../..": MASK | ~MASK, "": {"a": {"b": MASK}}}
    save_results(results, path)
    assert load_results(path) == results
    assert all(entry.parent == path.parent for entry in path.parent.rglob("*"))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_with_their_place(path: Path, number: float) -> None:
    with pytest.raises(ValueError, match=r"must hold finite numbers, but /rows/1/loss is (nan|inf|-inf)"):
        save_results({"rows": [{"loss": 1.0}, {"loss": number}]}, path)
    with pytest.raises(ValueError, match=r"tensor in results must be finite, but one of shape \(2,\)"):
        save_results({"scores": torch.tensor([1.0, number])}, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j])
def test_values_of_other_types_are_refused_with_their_place(path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=rf"but /a/0 is a {type(value).__name__}"):
        save_results({"a": [value]}, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(10, 10, requires_grad=True),
        torch.tensor(3),
        torch.arange(7, dtype=torch.uint8),
        torch.eye(3).bool(),
        torch.ones(4, dtype=torch.bfloat16),
        torch.tensor([-1e150, 1e150], dtype=torch.float64),
        torch.tensor([5e-324, 0.0], dtype=torch.float64),
    ],
    ids=["floats", "scalar", "bytes", "booleans", "one value", "huge", "tiny"],
)
def test_tensors_become_summaries(path: Path, tensor: Tensor) -> None:
    save_results({"scores": tensor}, path)
    summary = load_results(path)["scores"]
    values = tensor.detach().double().flatten()
    assert summary["shape"] == list(tensor.shape)
    assert f"torch.{summary['dtype']}" == str(tensor.dtype)
    assert summary["quantiles"]["0.0"] == values.min().item()
    assert summary["quantiles"]["1.0"] == values.max().item()
    assert len(summary["quantiles"]) == len(QUANTILES)
    assert sum(summary["histogram"]["counts"]) == tensor.numel()
    assert len(summary["histogram"]["edges"]) == len(summary["histogram"]["counts"]) + 1


def test_summaries_of_many_values() -> None:
    summary = summarise_tensor(torch.arange(1001.0))
    assert summary["quantiles"] == {str(q): round(q * 1000) for q in QUANTILES}
    assert summary["mean"] == pytest.approx(500)
    assert summary["std"] == pytest.approx(math.sqrt((1001**2 - 1) / 12))  # of the numbers 0 to n - 1
    assert summarise_tensor(torch.zeros(0, 3)) == {"shape": [0, 3], "dtype": "float32"}


# ---------------------------------------------------------------------------------------------- files that appear whole

CRASHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "while writing": lambda patch: patch.setattr(Path, "write_text", _write_half),
    "while flushing": lambda patch: patch.setattr(os, "fsync", _fail),
    "while renaming": lambda patch: patch.setattr(Path, "replace", _fail),
}


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _write_half(path: Path, text: str, **_: object) -> int:
    path.write_bytes(text.encode()[: len(text) // 2])
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", CRASHES)
@pytest.mark.parametrize("had_file", [True, False])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, had_file: bool
) -> None:
    if had_file:
        save_results({"old": 1}, path)
    before = {entry: entry.read_bytes() for entry in path.parent.iterdir()}
    CRASHES[moment](monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        save_results({"new": list(range(1000))}, path)
    assert {entry: entry.read_bytes() for entry in path.parent.iterdir()} == before


def test_an_interrupt_in_mid_write_leaves_nothing(path: Path) -> None:
    def write(aside: Path) -> None:
        aside.write_text("half")
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        write_whole(path, write)
    assert list(path.parent.iterdir()) == []


def test_readers_see_the_old_file_until_the_new_one_is_whole(path: Path) -> None:
    write_json(path, "old")

    def write(aside: Path) -> None:
        aside.write_text("half")
        assert path.read_text() == '"old"\n'
        assert aside.parent == path.parent  # a rename is atomic within one file system only
        aside.write_text('"new"')

    write_whole(path, write)
    assert path.read_text() == '"new"'


def test_hash_file_is_that_of_the_bytes(path: Path) -> None:
    path.write_bytes(b"abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    with exclusive_lock(lock), pytest.raises(ValueError, match="one process at a time"), exclusive_lock(lock):
        pass
    with exclusive_lock(lock):
        pass


# ------------------------------------------------------------------------------------------------ truncated and foreign

FOREIGN = {
    "empty": (b"", "must be a whole JSON file"),
    "half": (b'{"a": [1, 2', "must be a whole JSON file"),
    "a list": (b"[1]", "must hold a JSON object, but holds a list"),
    "NaN": (b'{"a": NaN}', "NaN is not allowed"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is not allowed"),
    "beyond floats": (b'{"a": 1e999}', "1e999 is not allowed, because numbers must be finite"),
    "below floats": (b'{"a": [1.5, -1E+400]}', r"-1E\+400 is not allowed"),
    "no UTF-8": (b'{"a": "\xff"}', "must be a whole JSON file"),
    "deep": (b'{"a":' * 100_000, "its lists or objects are nested too deeply, more than 100 times; restore it"),
    "a mask elsewhere": (b'{"m": {"mask_file": "../mask"}}', "must be the name of a file beside the results"),
    "a mask at the root": (b'{"m": {"mask_file": "/etc/passwd"}}', "must be the name of a file beside the results"),
    "a state elsewhere": (b'{"m": {"state_file": "../state"}}', "must be the name of a file beside the results"),
    "the folder above": (b'{"m": {"mask_file": ".."}}', "must be the name of a file beside the results"),
    "no name": (b'{"m": {"mask_file": ""}}', "must be the name of a file beside the results"),
    "a mask named 3": (b'{"m": {"mask_file": 3}}', "must be the name of a file beside the results"),
    "a zero byte": (b'{"m": {"mask_file": "a\\u0000b"}}', "must be"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files_are_refused(path: Path, case: str) -> None:
    content, message = FOREIGN[case]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_results(path)


def test_a_missing_file_is_refused_by_name(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.json must be a whole JSON file, but there is no such file"):
        load_results(path)
    path.write_text('{"m": [{"mask_file": "missing"}]}', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="missing must be a whole safetensors file, but there is no such file"):
        load_results(path)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_altered_files_raise_nothing_but_value_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    content = bytearray(json.dumps({"mask": {"mask_file": "absent"}, "a": [1.5, None, {"b": "é"}]}).encode())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] ^= data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ValueError, FileNotFoundError):  # the latter of the mask
        assert isinstance(load_results(path), dict)


def test_files_are_flushed_before_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut may leave the new name with no content."""
    calls: list[str] = []
    flush, replace = files.flush_to_disk, Path.replace

    def watched_flush(path: Path) -> None:
        calls.append("flush")
        flush(path)

    def watched_replace(aside: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(aside, target)

    monkeypatch.setattr(files, "flush_to_disk", watched_flush)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_json(path, 1)
    assert calls == ["flush", "rename", "flush"]


def test_importance_keeps_its_report_and_what_a_heat_map_is_drawn_from(path: Path) -> None:
    score = torch.arange(32.0 * 48).view(32, 48)
    importance = Importance({"w": score}, {"score": "|w|"}, output_dims={"w": (0,)}, standard_errors={"w": score / 10})
    save_results({"importance": importance}, path)
    loaded = load_results(path)["importance"]
    assert loaded["report"] == {"score": "|w|"}
    assert loaded["standard_errors"]["w"]["mean"] == pytest.approx(float(score.mean()) / 10)
    blocks = score.view(16, 2, 16, 3).mean((1, 3))
    torch.testing.assert_close(torch.tensor(loaded["scores"]["w"]["heat_map"]), blocks)

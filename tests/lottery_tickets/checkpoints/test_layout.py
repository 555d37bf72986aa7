"""Which files a checkpoint is, and files that are none: each is refused by name, in words."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lottery_tickets import CheckpointWeights
from tests.lottery_tickets.checkpoints.shards import INDEX, save_sharded

STATE = {"a.weight": torch.randn(4, 4), "b.weight": torch.randn(4, 4), "c.weight": torch.randn(4, 4)}
FIRST, SECOND = "model-00000.safetensors", "model-00001.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_sharded(STATE, tmp_path / "model", [0, 1, 1])


def change_index(folder: Path, **places: str | None) -> None:
    """Changes where the index says that tensors lie; None takes one out."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= {f"{name}.weight": place for name, place in places.items()}
    index["weight_map"] = {name: place for name, place in index["weight_map"].items() if place}
    (folder / INDEX).write_text(json.dumps(index))


def test_files_folders_and_caches_of_hubs_are_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = CheckpointWeights(folder / FIRST)
    assert (alone.model, alone.revision, list(alone.shapes)) == (FIRST, None, ["a.weight"])
    assert list(CheckpointWeights(folder).shapes) == list(STATE)
    snapshots = tmp_path / "hub" / "models--org--name" / "snapshots"
    shutil.copytree(folder, snapshots / "abc1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for named in (snapshots.parent, snapshots / "abc1", Path("org/name")):
        found = CheckpointWeights(named)
        assert (found.model, found.revision) == ("org/name", "abc1")
    shutil.copytree(folder, snapshots / "abc2")
    with pytest.raises(ValueError, match="must have one snapshot, or say in refs/main which counts, but has 2"):
        CheckpointWeights("org/name")
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs" / "main").write_text("abc2\n")
    assert CheckpointWeights("org/name").revision == "abc2"
    with pytest.raises(FileNotFoundError, match=r"there is none of this name, nor a model in .*hub"):
        CheckpointWeights("org/other")


def test_one_file_of_any_name_is_a_checkpoint_and_several_without_an_index_are_none(folder: Path) -> None:
    (folder / INDEX).unlink()
    with pytest.raises(ValueError, match="to say what its 2 safetensors files are, but has neither"):
        CheckpointWeights(folder)
    (folder / SECOND).unlink()
    assert list(CheckpointWeights(folder).shapes) == ["a.weight"]
    save_file(STATE, folder / "model.safetensors")
    assert list(CheckpointWeights(folder).shapes) == list(STATE)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / SECOND).unlink()
    with pytest.raises(FileNotFoundError, match=f"{SECOND} must be a shard of the checkpoint"):
        CheckpointWeights(folder)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"a": SECOND}, "a.weight lies in model-00000.safetensors and not in model-00001.safetensors"),
        ({"b": None}, "b.weight of model-00001.safetensors is not in it"),
        ({"d": FIRST}, "d.weight is in no file"),
        ({"a": "../model/model-00000.safetensors"}, "must name files beside it, but names ../model"),
        ({"a": None, "b": None, "c": None}, "must name at least one tensor"),
    ],
)
def test_an_index_that_is_wrong_is_refused(places: dict[str, str | None], told: str, folder: Path) -> None:
    if "a" in places and places["a"] == SECOND:
        change_index(folder, b=FIRST)
    change_index(folder, **places)
    with pytest.raises(ValueError, match=told):
        CheckpointWeights(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    save_file({"a.weight": STATE["a.weight"], "b.weight": STATE["b.weight"]}, folder / FIRST)
    with pytest.raises(
        ValueError, match=r"must hold each tensor once, but 'b\.weight' is in .*0\.safe.* and in .*1\.safe"
    ):
        CheckpointWeights(folder)


def test_a_tensor_that_the_index_lists_twice_is_where_it_lies_or_refused(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    twice = text.replace('"a.weight": ', f'"a.weight": "{SECOND}", "a.weight": ')
    (folder / INDEX).write_text(twice)
    assert list(CheckpointWeights(folder).shapes) == list(STATE)
    (folder / INDEX).write_text(
        text.replace(f'"a.weight": "{FIRST}"', f'"a.weight": "{FIRST}", "a.weight": "{SECOND}"')
    )
    with pytest.raises(ValueError, match=r"a\.weight is in no file"):
        CheckpointWeights(folder)


def test_a_shard_with_the_header_of_another_file_is_refused(folder: Path) -> None:
    first, second = (folder / FIRST).read_bytes(), (folder / SECOND).read_bytes()
    header = 8 + int.from_bytes(first[:8], "little")
    (folder / SECOND).write_bytes(first[:header] + second[8 + int.from_bytes(second[:8], "little") :])
    with pytest.raises(ValueError, match=f"{SECOND} must be a whole safetensors file"):
        CheckpointWeights(folder)


@pytest.mark.parametrize("cut", [1, 100, 200])
def test_a_shard_that_is_cut_short_is_refused(cut: int, folder: Path) -> None:
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-cut])
    with pytest.raises(ValueError, match=f"{SECOND} must be a .*safetensors file"):
        CheckpointWeights(folder)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.gguf", b"GGUF\x03\x00\x00\x00aaaaaaaaaaaaaa", "is a GGUF file, whose weights are quantised"),
        ("a.bin", b"PK\x03\x04aaaaaaaaaaaaaa", "is a torch file, which is a program to be run"),
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"\xff" * 40, "must be a safetensors file, but is no safetensors file"),
        ("a.safetensors", b"\xff" * 7 + b"\x00{" + b" " * 40, "must be a whole safetensors file"),
    ],
)
def test_files_of_other_formats_are_refused_in_words(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        CheckpointWeights(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pytorch_model.bin", "its weights are pickles"),
        ("q4.gguf", "its weights are GGUF, which is quantised"),
        ("a.txt", "there are none"),
    ],
)
def test_folders_without_safetensors_are_refused_in_words(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=f"must have weights as safetensors, but {told}"):
        CheckpointWeights(tmp_path)


def test_quantised_checkpoints_are_refused_in_words(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}')
    with pytest.raises(ValueError, match=r"must have weights in floating point, but they are quantised \('gptq'\)"):
        CheckpointWeights(folder)


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": []}', '{"weight_map": {"a.weight": 3}}', "[" * 2000])
def test_a_garbled_index_is_refused_in_words(content: str, folder: Path) -> None:
    (folder / INDEX).write_text(content)
    with pytest.raises(ValueError, match=INDEX):
        CheckpointWeights(folder)

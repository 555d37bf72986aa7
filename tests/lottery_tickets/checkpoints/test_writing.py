"""Pruned copies of checkpoints: bit for bit what pruning in memory gives, whole or not at all, and gone on with."""

import errno
import filecmp
import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from lottery_tickets import CheckpointWeights, Mask, apply_mask, create_random_mask
from lottery_tickets._core.tensor_files.shards import PAGE
from lottery_tickets.checkpoints import layout as layout_module
from lottery_tickets.checkpoints import writing
from tests.lottery_tickets.checkpoints.shards import INDEX, save_sharded
from tests.models import make_language_model
from tests.strategies import FLOATS


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of some pages in blocks of one, which are noted as soon as they are written."""
    monkeypatch.setattr(writing, "BYTES_PER_BLOCK", PAGE)
    monkeypatch.setattr(writing, "BYTES_PER_FLUSH", PAGE)


def make_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (70, 33), "b": (9, 1111), "c": (13, 5)}
    state = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state["b.weight"] = state["b.weight"].bfloat16()
    state["c.weight"][0, 0], state["c.weight"][0, 1] = -0.0, float("nan")
    return {**state, "steps": torch.arange(7)}


def prune(state: dict[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    return {name: torch.where(mask[name], value, 0) if name in mask else value for name, value in state.items()}


def load_all(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def to_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert to_bytes(found[name]) == to_bytes(tensor), name


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def list_leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_large", [False, True])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_copies_are_bit_for_bit_what_pruning_in_memory_gives(
    is_large: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    shapes = data.draw(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 90)), min_size=1, max_size=4))
    dtypes = [data.draw(st.sampled_from(FLOATS)) for _ in shapes]
    state = {f"{i}.weight": torch.randn(s).to(d) for i, (s, d) in enumerate(zip(shapes, dtypes, strict=True))}
    files = data.draw(st.lists(st.integers(0, 1), min_size=len(state), max_size=len(state)))
    chosen = {name: tensor.shape for name, tensor in state.items() if data.draw(st.booleans())}
    mask = create_random_mask(Mask.keeping_all(chosen), data.draw(st.floats(0, 1)), seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "LARGE", 0.0 if is_large else 1.0)
        apply_mask(CheckpointWeights(save_sharded(state, folder / "old", files)), mask, output=folder / "new")
    assert_same(load_all(folder / "new"), prune(state, mask))
    assert list_names(folder) == ["new", "old"]


def test_files_headers_and_what_lies_beside_them_stay(tmp_path: Path) -> None:
    old = save_sharded(make_state(), tmp_path / "old", [0, 1, 1, 0])
    beside = {"config.json": "{}", "tokenizer.json": "é", "pytorch_model.bin": "dense", "other.safetensors": "dense"}
    for name, content in beside.items():
        (old / name).write_text(content)
    (old / "onnx").mkdir()
    mask = create_random_mask(Mask.keeping_all({"a.weight": (70, 33)}), 0.5, seed=0)
    apply_mask(CheckpointWeights(old), mask, output=tmp_path / "new")
    shards = ["model-00000.safetensors", "model-00001.safetensors"]
    assert list_names(tmp_path / "new") == ["config.json", *shards, INDEX, "tokenizer.json"]
    same, _, _ = filecmp.cmpfiles(
        old, tmp_path / "new", ["config.json", "tokenizer.json", INDEX, shards[1]], shallow=False
    )
    assert len(same) == 4
    contents = [(place / shards[0]).read_bytes() for place in (old, tmp_path / "new")]
    header = 8 + int.from_bytes(contents[0][:8], "little")
    assert contents[0][:header] == contents[1][:header]
    assert contents[0] != contents[1]


def test_transformers_loads_the_copy(tmp_path: Path) -> None:
    transformers = importlib.import_module("transformers")
    model: Any = make_language_model("tied Llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "old", max_shard_size="4KB")
    mask = create_random_mask(model, 0.5, seed=1)
    apply_mask(CheckpointWeights(tmp_path / "old"), mask, output=tmp_path / "new")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    apply_mask(model, mask)
    assert_same(dict(loaded.state_dict()), dict(model.state_dict()))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("filling", [0, 1, 3])
def test_headers_that_early_versions_did_not_fill_up(filling: int, tmp_path: Path) -> None:
    state = make_state()
    save_sharded(state, tmp_path / "old", [0] * len(state))
    path = tmp_path / "old" / "model-00000.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip() + b" " * filling
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    for stored in CheckpointWeights(tmp_path / "old").find_prunable().values():
        assert stored.read(0, 5).data_ptr() % stored.dtype.itemsize == 0
    mask = create_random_mask(Mask.keeping_all({"b.weight": (9, 1111), "c.weight": (13, 5)}), 0.5, seed=0)
    apply_mask(CheckpointWeights(tmp_path / "old"), mask, output=tmp_path / "new")
    assert_same(load_all(tmp_path / "new"), prune(state, mask))


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_nothing_that_exists_is_replaced(kind: str, tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(4, 4)}
    old = save_sharded(state, tmp_path / "old", [0])
    mask = Mask.from_tensors({"a.weight": torch.eye(4)})
    place = tmp_path / "new"
    match kind:
        case "file":
            place.write_text("mine")
        case "folder":
            place.mkdir()
            (place / "mine").write_text("mine")
        case "dangling":
            place.symlink_to(tmp_path / "nowhere")
    for source, output in (
        (old, place),
        (old, old),
        (old / "model-00000.safetensors", old / "model-00000.safetensors"),
    ):
        with pytest.raises(ValueError, match="must be free for the new checkpoint"):
            apply_mask(CheckpointWeights(source), mask, output=output)
    assert_same(load_all(old), state)
    assert list_leftovers(tmp_path) == []
    (tmp_path / "empty").mkdir()
    apply_mask(CheckpointWeights(old), mask, output=tmp_path / "empty")
    assert_same(load_all(tmp_path / "empty"), prune(state, mask))


def test_masks_of_other_models_and_calls_without_a_place_are_refused(tmp_path: Path) -> None:
    checkpoint = CheckpointWeights(save_sharded({"a.weight": torch.randn(4, 4)}, tmp_path / "old", [0]))
    for mask in ({"b.weight": torch.eye(4)}, {"a.weight": torch.eye(2)}):
        with pytest.raises(ValueError, match="was it made for another model"):
            apply_mask(checkpoint, mask, output=tmp_path / "new")
    with pytest.raises(TypeError, match="a checkpoint must have output="):
        apply_mask(checkpoint, {"a.weight": torch.eye(4)})
    with pytest.raises(TypeError, match="a model, which is changed, has none"):
        apply_mask(nn.Linear(4, 4), {"weight": torch.eye(4)}, output=tmp_path / "new")
    assert list_names(tmp_path) == ["old"]


STOPPED = """
import sys, time
from pathlib import Path
from lottery_tickets import CheckpointWeights, Mask, apply_mask
from lottery_tickets.checkpoints import writing
writing.BYTES_PER_BLOCK = writing.BYTES_PER_FLUSH = 4096
folder, stop_after = Path(sys.argv[1]), int(sys.argv[2])
note, written = writing.write_json, 0
def write_json(path, done):
    global written
    note(path, done)
    written += 1
    if written == stop_after:
        print("stopped", flush=True)
        time.sleep(60)
writing.write_json = write_json
apply_mask(CheckpointWeights(folder / "old"), Mask.load(folder / "mask"), output=folder / "new")
"""


@pytest.mark.usefixtures("small_blocks")
def test_a_call_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    state = make_state()
    save_sharded(state, tmp_path / "old", [0, 1, 1, 1])
    mask = create_random_mask(Mask.keeping_all({n: t.shape for n, t in state.items() if n != "steps"}), 0.5, seed=0)
    mask.save(tmp_path / "mask")
    for stop_after in (2, 1, 2):
        command = [sys.executable, "-c", STOPPED, str(tmp_path), str(stop_after)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            with pytest.raises(ValueError, match="must be used by one process at a time"):
                apply_mask(CheckpointWeights(tmp_path / "old"), mask, output=tmp_path / "new")
            process.send_signal(signal.SIGKILL)
        assert not (tmp_path / "new").exists()
    [aside] = list_leftovers(tmp_path)
    noted = writing._read_progress(tmp_path / aside)
    first, second = "model-00000.safetensors", "model-00001.safetensors"
    assert noted == {first: (tmp_path / "old" / first).stat().st_size, second: 2 * PAGE}
    for name, done in noted.items():
        os.truncate(tmp_path / aside / name, done)
    read: list[int] = []
    checkpoint = CheckpointWeights(tmp_path / "old")
    with checkpoint.telling(read.append):
        apply_mask(checkpoint, mask, output=tmp_path / "new")
    total = sum(header.stop for header in checkpoint.layout.headers.values())
    assert sum(read) == total - sum(noted.values())
    assert_same(load_all(tmp_path / "new"), prune(state, mask))
    assert list_names(tmp_path) == ["mask", "new", "old"]


@pytest.mark.usefixtures("small_blocks")
def test_another_mask_or_a_changed_checkpoint_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state()
    save_sharded(state, tmp_path / "old", [0, 0, 0, 0])
    shapes = {"b.weight": (9, 1111)}
    masks = [create_random_mask(Mask.keeping_all(shapes), 0.5, seed=seed) for seed in (0, 1)]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            apply_mask(CheckpointWeights(tmp_path / "old"), masks[0], output=tmp_path / "new")
    assert len(list_leftovers(tmp_path)) == 1
    apply_mask(CheckpointWeights(tmp_path / "old"), masks[1], output=tmp_path / "new")
    assert_same(load_all(tmp_path / "new"), prune(state, masks[1]))
    assert list_leftovers(tmp_path) == []


@pytest.mark.usefixtures("small_blocks")
def test_a_disk_that_is_full_is_told_before_and_gone_on_with_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state()
    save_sharded(state, tmp_path / "old", [0, 0, 0, 0])
    mask = create_random_mask(Mask.keeping_all({"b.weight": (9, 1111)}), 0.5, seed=0)
    checkpoint = CheckpointWeights(tmp_path / "old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(OSError, match=r"needs [\d,]+ bytes more, but the disk has 1 left"):
            apply_mask(checkpoint, mask, output=tmp_path / "new")
    assert list_names(tmp_path) == ["old"]
    write, room = os.pwrite, [4]

    def write_while_there_is_room(descriptor: int, content: Any, place: int) -> int:  # noqa: ANN401 - any buffer
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_while_there_is_room)
        with pytest.raises(OSError, match=r"No space left on device; call again to go on, or delete .*\.part"):
            apply_mask(checkpoint, mask, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    apply_mask(checkpoint, mask, output=tmp_path / "new")
    assert_same(load_all(tmp_path / "new"), prune(state, mask))
    assert list_leftovers(tmp_path) == []


@pytest.mark.usefixtures("small_blocks")
def test_progress_that_was_forged_or_spoilt_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state()
    save_sharded(state, tmp_path / "old", [0, 0, 0, 0])
    mask = create_random_mask(Mask.keeping_all({"b.weight": (9, 1111)}), 0.5, seed=0)
    checkpoint = CheckpointWeights(tmp_path / "old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            apply_mask(checkpoint, mask, output=tmp_path / "new")
    [aside] = list_leftovers(tmp_path)
    os.truncate(tmp_path / aside / "model-00000.safetensors", 5000)  # shorter than noted
    apply_mask(checkpoint, mask, output=tmp_path / "new")
    assert_same(load_all(tmp_path / "new"), prune(state, mask))

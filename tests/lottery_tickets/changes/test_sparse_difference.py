"""Differences as files: what they give is what was, bit for bit, and nothing else is given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lottery_tickets import CheckpointWeights
from lottery_tickets._core.tensor_files.headers import read_header
from lottery_tickets.changes import apply_difference, save_difference
from lottery_tickets.changes.gaps import pack_places, unpack_places
from lottery_tickets.storage import load_weights, save_weights
from tests.models import make_language_model


@given(st.sets(st.one_of(st.integers(0, 400), st.integers(0, 2**62))))
def test_places_come_back(places: set[int]) -> None:
    expected = np.array(sorted(places), dtype=np.int64)
    packed = pack_places(expected)
    assert np.array_equal(unpack_places(packed), expected)
    if len(packed):
        with pytest.raises(ValueError, match="cut short"):
            unpack_places(np.append(packed, np.uint8(128)))


def make_state() -> dict[str, Tensor]:
    """Tensors of many dtypes, one of which does not change."""
    return {
        "a.weight": torch.randn(300, 70).bfloat16(),
        "b.weight": torch.randn(9, 11).T,  # not contiguous
        "norm.bias": torch.randn(5, dtype=torch.float64),
        "count": torch.tensor(3),
        "mask": torch.tensor([True, False]),
        "still": torch.randn(4),
    }


def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
    after = {name: tensor.clone() for name, tensor in state.items()}
    after["a.weight"][::3, 5] *= 2
    after["a.weight"][1, :3] = torch.tensor([-0.0, float("nan"), float("inf")])
    after["b.weight"] += 1
    after["norm.bias"][2] = -after["norm.bias"][2]
    after["count"] += 1
    after["mask"][0] = False
    return after


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    views = [{n: t.contiguous().view(-1).view(torch.uint8) for n, t in state.items()} for state in (first, second)]
    return all(torch.equal(views[0][name], views[1][name]) for name in second)


def test_base_and_file_give_what_was_bit_for_bit(tmp_path: Path) -> None:
    before = make_state()
    before["a.weight"][1, 0] = 0.0  # becomes -0.0
    after = change(before)
    report = save_difference(before, after, tmp_path / "d.safetensors")
    words = {name: t.contiguous().view(-1).view(torch.uint8).view(t.numel(), -1) for name, t in before.items()}
    others = {name: t.contiguous().view(-1).view(torch.uint8).view(t.numel(), -1) for name, t in after.items()}
    assert report["num_changed"] == sum(int((words[n] != others[n]).any(1).sum()) for n in words)
    assert report["num_bytes"] == (tmp_path / "d.safetensors").stat().st_size
    kept = dict(before)
    apply_difference(before, tmp_path / "d.safetensors")
    assert same(before, after)
    assert all(before[name] is kept[name] for name in before)  # in place


def test_sizes_are_of_few_bytes_a_change(tmp_path: Path) -> None:
    before = {"a.weight": torch.randn(1000, 1000).bfloat16()}
    after = {"a.weight": torch.where(torch.rand(1000, 1000) < 0.01, -before["a.weight"], before["a.weight"])}
    report = save_difference(before, after, tmp_path / "d.safetensors")
    assert report["num_bytes"] < 3.6 * report["num_changed"] + 500 < 0.02 * report["num_bytes_after"]
    assert save_difference(before, before, tmp_path / "none.safetensors")["num_bytes"] < 500
    apply_difference(before, tmp_path / "none.safetensors")


def test_models_and_checkpoints_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery_tickets.changes.sparse_difference.WEIGHTS_PER_BLOCK", 64)
    model: Any = make_language_model("tied Llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "before", max_shard_size="4KB")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape) * (torch.rand(parameter.shape) < 0.1))
    model.save_pretrained(tmp_path / "after", max_shard_size="4KB")
    before, after = (CheckpointWeights(tmp_path / name) for name in ("before", "after"))
    save_difference(before, after, tmp_path / "d.safetensors")
    apply_difference(before, tmp_path / "d.safetensors", output=tmp_path / "copy")
    for file in (tmp_path / "after").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "copy" / file.name).read_bytes()
    with pytest.raises(ValueError, match="must be free"):
        apply_difference(before, tmp_path / "d.safetensors", output=tmp_path / "copy")


def test_a_file_is_edited_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery_tickets.checkpoints.writing.BYTES_PER_BLOCK", 4096)
    before = {name: tensor.contiguous() for name, tensor in make_state().items()}
    after = change(before)
    save_weights(before, tmp_path / "before.safetensors")
    save_weights(after, tmp_path / "after.safetensors")
    save_difference(before, after, tmp_path / "d.safetensors")
    weights = CheckpointWeights(tmp_path / "before.safetensors")
    apply_difference(weights, tmp_path / "d.safetensors", output=tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == (tmp_path / "after.safetensors").read_bytes()


def test_a_model_is_changed_in_place(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = {name: value + 1 for name, value in before.items()}
    save_difference(before, after, tmp_path / "d.safetensors")
    apply_difference(model, tmp_path / "d.safetensors")
    assert same(model.state_dict(), after)


def test_another_base_and_altered_files_change_nothing(tmp_path: Path) -> None:
    before = make_state()
    after, file = change(before), tmp_path / "d.safetensors"
    save_difference(before, after, file)
    for other in (after, {**before, "still": before["still"] + 1}, {n: t for n, t in before.items() if n != "still"}):
        copy = {name: tensor.clone() for name, tensor in other.items()}
        with pytest.raises(ValueError, match="the base must be what the difference says"):
            apply_difference(copy, file)
        assert same(copy, other)
    metadata = read_header(file).metadata
    whole = load_weights(file)
    for name, value in {
        "a.weight:values": whole["a.weight:values"] + 1,
        "a.weight:places": whole["a.weight:places"] + 1,
    }.items():
        safetensors.torch.save_file({**whole, name: value}, file, metadata)
        with pytest.raises(ValueError, match=r"what the file gives must be|inside of it"):
            apply_difference(before, file)
    safetensors.torch.save_file({**whole, "count:places": whole["count:places"] + 1}, file, metadata)
    with pytest.raises(ValueError, match="as many values as places, inside of it"):
        apply_difference(before, file)
    safetensors.torch.save_file({**whole, "a.weight:values": whole["a.weight:values"].float()}, file, metadata)
    with pytest.raises(ValueError, match="values of its dtype"):
        apply_difference(before, file)
    for part in ("a.weight:places", "b.weight:values"):
        safetensors.torch.save_file({name.replace(part, "x"): value for name, value in whole.items()}, file, metadata)
        with pytest.raises(ValueError, match=r"as many values as places|of what changed and of nothing else"):
            apply_difference(before, file)
    save_weights(before, file)
    with pytest.raises(ValueError, match="must be a difference that save_difference wrote"):
        apply_difference(before, file)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    before = make_state()
    with pytest.raises(ValueError, match=r"count.* are on one side only"):
        save_difference(before, {name: t for name, t in before.items() if name != "count"}, tmp_path / "d.safetensors")
    with pytest.raises(
        ValueError, match=r"'still' is \(4,\) in torch.float32 before and \(5,\) in torch.float32 after"
    ):
        save_difference(before, {**before, "still": torch.ones(5)}, tmp_path / "d.safetensors")
    save_difference(before, before, tmp_path / "d.safetensors")
    with pytest.raises(TypeError, match="must have output="):
        apply_difference(before, tmp_path / "d.safetensors", output=tmp_path / "copy")

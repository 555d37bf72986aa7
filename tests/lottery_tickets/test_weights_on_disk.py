"""Weights come back from a file bit for bit, or the file is refused by name."""

from pathlib import Path

import pytest
import safetensors
import torch
from torch import Tensor, nn

from lottery_tickets.storage import load_weights, save_weights


def make_state() -> dict[str, Tensor]:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict()


def assert_same_bits(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in make_state().items()}
    save_weights(state, tmp_path / "deep" / "model.safetensors", metadata={"made by": "hand"})
    assert_same_bits(load_weights(tmp_path / "deep" / "model.safetensors"), state)
    with safetensors.safe_open(tmp_path / "deep" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"made by": "hand"}


def test_tied_weights_are_stored_apart(tmp_path: Path) -> None:
    tied = torch.randn(3, 3)
    save_weights({"in": tied, "out": tied.T}, tmp_path / "model.safetensors")
    assert_same_bits(load_weights(tmp_path / "model.safetensors"), {"in": tied, "out": tied.T})


@pytest.mark.parametrize("nested", [False, True])
def test_torch_files_are_read_too(tmp_path: Path, nested: bool) -> None:
    state = make_state()
    content = {"state_dict": state, "epoch": 3} if nested else {**state, "epoch": 3}
    torch.save(content, tmp_path / "model.pt")
    assert_same_bits(load_weights(tmp_path / "model.pt"), state)


def test_code_in_a_torch_file_does_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"model\.pt must be a safetensors file or a torch file with a state dict, but"
    ):
        load_weights(tmp_path / "model.pt")


def test_a_file_without_a_state_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt must hold a state dict, but holds a list"):
        load_weights(tmp_path / "list.pt")


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name} must be .*, but there is no such file; check the name"):
        load_weights(str(tmp_path / name))

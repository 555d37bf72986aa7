"""Exports that were altered, or are loaded into something else, are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lottery_tickets import Mask, export_model, load_export, save_ticket
from lottery_tickets.storage import save_weights
from tests.damaged_files import cut, flip_some
from tests.lottery_tickets.structured.exports.exported import make_llama, make_small
from tests.models import make_language_model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, mask, batch = make_small()
    path = tmp_path_factory.mktemp("export") / "small.safetensors"
    export_model(model, mask, path, batch)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export")
    model, mask, batch = make_llama(path / "base")
    export_model(model, mask, path / "small", batch)
    return path / "small"


@settings(max_examples=60)
@given(st.data())
def test_a_file_with_any_byte_changed_is_refused_or_the_same(file: Path, data: st.DataObject) -> None:
    model, _, _ = make_small()
    whole, changed = file.read_bytes(), file.with_name("changed")
    changed.write_bytes(flip_some(whole, data))
    with pytest.raises((ValueError, OSError), match="changed"):
        load_export(model, changed)


def test_a_label_that_still_reads_is_compared_with_its_hash(file: Path) -> None:
    model, _, _ = make_small()
    changed = file.with_name("changed")
    changed.write_bytes(file.read_bytes().replace(b"shrunk", b"shrunj"))
    with pytest.raises(ValueError, match="changed must match the hash it carries, but does not; it was altered"):
        load_export(model, changed)


def test_a_file_that_is_cut_short_is_refused(file: Path) -> None:
    model, _, _ = make_small()
    short = file.with_name("short")
    for content in list(cut(file.read_bytes()))[::40]:
        short.write_bytes(content)
        with pytest.raises(ValueError, match="short"):
            load_export(model, short)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "export.json"])
def test_a_folder_with_a_file_that_changed_or_went_is_refused(folder: Path, name: str, tmp_path: Path) -> None:
    model = make_language_model("tied Llama")
    changed = shutil.copytree(folder, tmp_path / "changed")
    content = bytearray((folder / name).read_bytes())
    content[-20] ^= 1
    (changed / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_export(model, changed)
    (changed / name).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        load_export(model, changed)


def test_an_export_into_another_architecture_is_refused(file: Path, folder: Path) -> None:
    wider = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    differ = r"differs from this Sequential in 3 of 4 tensors \(.*0\.weight.*\); pass a network of the dense"
    with pytest.raises(ValueError, match=differ):
        load_export(wider, file)
    with pytest.raises(ValueError, match="differs from this LlamaForCausalLM"):
        load_export(make_language_model("tied Llama"), file)
    with pytest.raises(ValueError, match="is of a LlamaForCausalLM, but the model is a GPT2LMHeadModel"):
        load_export(make_language_model("GPT2"), folder)
    with pytest.raises(ValueError, match="is of a LlamaForCausalLM, but the model is a Sequential"):
        load_export(wider, folder)


def test_other_files_are_refused(tmp_path: Path) -> None:
    model, mask, _ = make_small()
    save_weights(model.state_dict(), tmp_path / "weights")
    mask.save(tmp_path / "mask")
    with pytest.raises(ValueError, match="weights must be an export that export_model wrote, but"):
        load_export(model, tmp_path / "weights")
    save_ticket(tmp_path / "ticket", mask, model)
    with pytest.raises(
        ValueError, match="ticket must be an export that export_model wrote, but it is 'lottery-tickets"
    ):
        load_export(model, tmp_path / "ticket")
    with pytest.raises(ValueError, match="the mask must name its base, but does not"):
        load_export(model, tmp_path / "mask")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_export(model, tmp_path / "nowhere")


def test_a_file_says_which_units_are_left(file: Path) -> None:
    with safetensors.safe_open(file, framework="pt") as opened:
        label = json.loads(json.loads(opened.metadata()["lottery_tickets"])["content"])
    assert label["left"] == {"0.weight": {"0": [0, 2]}, "0.bias": {"0": [0, 2]}, "2.weight": {"1": [0, 2]}}
    assert label["dense"] == {"0.weight": [3, 4], "0.bias": [3], "2.weight": [2, 3], "2.bias": [2]}


def test_tied_layers_stay_tied_and_dtypes_are_those_of_the_export(tmp_path: Path) -> None:
    def make(dtype: torch.dtype) -> Any:  # noqa: ANN401 - its layers are looked at
        model: Any = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).to(dtype)
        model[2].weight = model[0].weight
        return model

    model = make(torch.float64)
    mask = Mask.from_tensors({"0.weight": torch.eye(4)})
    batch = torch.randn(2, 4, dtype=torch.float64), torch.tensor([0, 1])
    export_model(model, mask, tmp_path / "out", batch, form="dense")
    loaded: Any = load_export(make(torch.float32), tmp_path / "out")
    assert loaded[2].weight is loaded[0].weight
    assert torch.equal(loaded[0].weight, model[0].weight * torch.eye(4, dtype=torch.float64))

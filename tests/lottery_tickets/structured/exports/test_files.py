"""Exports that were altered, or are loaded into something else, are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from benchmarks.studies.fuzzing.sealing import seal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lottery_tickets import Mask, export_model, load_export, save_ticket
from lottery_tickets.storage import save_weights
from lottery_tickets.structured.exports.exporting import Form
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


@settings(max_examples=60, deadline=None)
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


def test_tensors_of_other_shapes_are_refused_whoever_made_the_hashes_anew(file: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = safetensors.torch.load_file(file)
    tensors["0.weight"] = tensors["0.weight"].view(4, 2)
    safetensors.torch.save_file(tensors, tmp_path / "small.safetensors", metadata)
    assert seal(tmp_path)
    with pytest.raises(
        ValueError, match=r"must hold the tensors that its label says, but '0\.weight' is none of shape \[2"
    ):
        load_export(make_small()[0], tmp_path / "small.safetensors")


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


class Squashed(nn.Module):
    """A network of the caller's whose activation stands in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.second(torch.tanh(self.first(inputs)))
        return outputs


def make_otherwise_squashed() -> nn.Module:
    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.second(torch.relu(self.first(inputs)))
            return outputs

    return Squashed()


@pytest.mark.parametrize("form", ["shrunk", "packed"])
def test_a_network_that_computes_otherwise_is_refused(form: Form, file: Path, tmp_path: Path) -> None:
    """Same names, same shapes, for what is packed even the same weights: only what is computed with them differs."""
    model, mask, batch = make_small()
    place = file
    if form == "packed":
        save_weights(model.state_dict(), tmp_path / "base.safetensors")
        place = tmp_path / "packed"
        export_model(model, mask, place, batch, form="packed", base=tmp_path / "base.safetensors")
    assert load_export(model.train().requires_grad_(False), place) is not model
    other = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2))
    other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match=r"but this Sequential differs in what 1 computes, such as an activation or a"):
        load_export(other, place)


def test_the_code_of_a_callers_network_counts(tmp_path: Path) -> None:
    model, (_, mask, batch) = Squashed(), make_small()
    export_model(model, {"second.weight": mask["2.weight"]}, tmp_path / "out", batch, form="dense")
    load_export(Squashed(), tmp_path / "out")
    with pytest.raises(ValueError, match="this Squashed differs in what itself computes"):
        load_export(make_otherwise_squashed(), tmp_path / "out")


def test_a_model_of_another_configuration_is_refused(folder: Path) -> None:
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1}
    load_export(make_language_model("tied Llama", **sizes), folder)
    with pytest.raises(ValueError, match=r"differs in what config\.hidden_act computes"):
        load_export(make_language_model("tied Llama", **sizes, hidden_act="gelu"), folder)


def test_what_other_versions_told_is_a_warning(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2))
    monkeypatch.setattr("lottery_tickets.structured.exports.architectures.version", lambda _: "9.9")
    load_export(make_small()[0], file)
    with pytest.warns(UserWarning, match=r"was made with other versions \(python .*, and whether it is of this Sequen"):
        load_export(other, file)


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

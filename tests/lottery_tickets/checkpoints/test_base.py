"""A mask that names its base: for that one only, file or model, and as good a mask as any."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import CheckpointWeights, Mask, apply_mask, create_magnitude_mask
from lottery_tickets.checkpoints import check_base
from tests.lottery_tickets.checkpoints.shards import save_sharded
from tests.models import make_language_model

STATE = {"a.weight": torch.randn(40, 30), "b.weight": torch.randn(8, 8).bfloat16(), "c.bias": torch.randn(0)}


@pytest.fixture
def ticket(tmp_path: Path) -> Mask:
    checkpoint = CheckpointWeights(save_sharded(STATE, tmp_path / "base", [0, 1, 1]))
    checkpoint.name_base(create_magnitude_mask(checkpoint, 0.5)).save(tmp_path / "ticket")
    return Mask.load(tmp_path / "ticket")


def test_the_file_names_the_base_and_the_bytes_of_each_tensor(ticket: Mask) -> None:
    base = ticket.provenance["base"]
    assert (base["model"], base["revision"]) == ("base", None)
    bytes_of = {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in STATE.items()}
    assert base["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in bytes_of.items()}
    assert ticket == create_magnitude_mask(STATE, 0.5)


def test_it_is_applied_to_its_base_wherever_that_lies(ticket: Mask, tmp_path: Path) -> None:
    elsewhere = CheckpointWeights(save_sharded(STATE, tmp_path / "fresh", [1, 0, 2]))
    apply_mask(elsewhere, ticket, output=tmp_path / "pruned")
    assert create_magnitude_mask(CheckpointWeights(tmp_path / "pruned"), 0.5) == ticket


@pytest.mark.parametrize("change", ["one bit", "dtype", "missing", "shape of another"])
def test_another_base_is_refused_before_anything_is_written(change: str, ticket: Mask, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    match change:
        case "one bit":
            state["b.weight"].view(torch.int16)[7, 7] ^= 1
        case "dtype":
            state["b.weight"] = state["b.weight"].half()
        case "missing":
            del state["c.bias"]
        case "shape of another":
            state["c.bias"] = torch.zeros(1)
    other = CheckpointWeights(save_sharded(state, tmp_path / "other", [0] * len(state)))
    with pytest.raises(
        ValueError, match=r"the mask is for base, but in other (b\.weight|c\.bias) is not the same; take"
    ):
        apply_mask(other, ticket, output=tmp_path / "pruned")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "other", "ticket"]


def test_a_model_that_was_loaded_from_the_base_is_told_from_others(tmp_path: Path) -> None:
    transformers = importlib.import_module("transformers")
    made: Any = make_language_model("tied Llama").to(torch.bfloat16)
    made.save_pretrained(tmp_path)
    checkpoint = CheckpointWeights(tmp_path)
    mask = create_magnitude_mask(checkpoint, 0.5)
    with pytest.raises(ValueError, match="the mask must name its base"):
        check_base(made, mask)
    ticket = checkpoint.name_base(mask)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    check_base(model, ticket)
    check_base(torch.nn.DataParallel(model), ticket)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    with pytest.raises(ValueError, match=r"in LlamaForCausalLM model\.norm\.weight is not the same"):
        check_base(model, ticket)


@pytest.mark.parametrize("base", [3, {}, {"model": "a", "revision": None, "sha256": ["a"]}])
def test_a_base_that_is_garbled_is_refused_in_words(base: object, tmp_path: Path) -> None:
    checkpoint = CheckpointWeights(save_sharded(STATE, tmp_path / "base", [0, 0, 0]))
    mask = create_magnitude_mask(checkpoint, 0.5)
    forged = Mask(mask.bits, mask.shapes, {"base": base})
    with pytest.raises(ValueError, match="the base that the mask names"):
        apply_mask(checkpoint, forged, output=tmp_path / "pruned")

"""Exports of pruned networks: what is loaded of a changed one is refused, or computes what the whole one did."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from tests.models import save_tiny_llama
from torch import Tensor, nn

import lottery_tickets as lt
from benchmarks.studies.fuzzing.outcomes import FileKind
from lottery_tickets import storage
from lottery_tickets.structured.exports.exporting import Form
from lottery_tickets.workloads import load_language_model

IMAGES: Final = torch.linspace(-1, 1, 15).view(3, 5)
TOKENS: Final = {"input_ids": torch.arange(8).view(2, 4)}


def _make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def _export(place: Path, form: Form) -> Sequence[Path]:
    model = _make_model()
    mask = {"2.weight": torch.ones(3, 4, dtype=torch.bool).index_fill(1, torch.tensor([1, 2]), 0)}
    base = place / "base.safetensors" if form == "packed" else None
    if base is not None:
        storage.save_weights(model.state_dict(), base)
    lt.export_model(model, mask, place / "small.safetensors", (IMAGES, torch.arange(3)), form=form, base=base)
    return [place / "small.safetensors"]


def _load(place: Path) -> object:
    return _tell(lt.load_export(_make_model(), place / "small.safetensors"), IMAGES)


def _export_llama(place: Path) -> Sequence[Path]:
    model = _load_llama(place)
    mask = lt.create_unit_mask(model, 0.5, units="neurons")
    lt.export_model(model, mask, place / "small", TOKENS, base=place / "base")
    return sorted((place / "small").iterdir())


@cache
def _load_llama(place: Path) -> nn.Module:
    return load_language_model(save_tiny_llama(place / "base"))[0]


def _load_folder(place: Path) -> object:
    return _tell(lt.load_export(_load_llama(place), place / "small"), TOKENS["input_ids"])


def _tell(model: nn.Module, inputs: Tensor) -> object:
    """Returns the weights and what they give, as values that can be compared."""
    with torch.no_grad():
        outputs: Any = model.eval()(inputs)
    return storage.hash_state(model.state_dict()), json.dumps(getattr(outputs, "logits", outputs).tolist())


EXPORTS: Final = (
    FileKind("export, a file", lambda place: _export(place, "shrunk"), _load, (lt.load_export,), compares=True),
    FileKind("export, packed", lambda place: _export(place, "packed"), _load, (lt.load_export,), compares=True),
    FileKind("export, a folder", _export_llama, _load_folder, (lt.load_export,), compares=True),
)

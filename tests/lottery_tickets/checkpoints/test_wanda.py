"""Wanda's mask of a checkpoint is that of the scores of the model in memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import (
    CheckpointWeights,
    compute_wanda_importance,
    create_importance_mask,
    create_magnitude_mask,
    create_wanda_mask,
)
from tests.lottery_tickets.checkpoints.decoders import CONFIGS, load_decoder, make_batches, make_decoder, save_decoder

BATCHES = make_batches()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(make_decoder("llama"), tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_streamed_is_in_memory(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = load_decoder(save_decoder(make_decoder(kind, dtype), tmp_path))
    mask = create_wanda_mask(CheckpointWeights(tmp_path), BATCHES, 0.4)
    wanted = create_importance_mask(compute_wanda_importance(model, BATCHES), 0.4, scope="row")
    assert mask == wanted
    assert list(mask) == list(wanted)
    assert mask.provenance == wanted.provenance
    assert mask != create_magnitude_mask(model, 0.4, scope="row")


@pytest.mark.parametrize(
    ("scope", "sparsity"), [("layer", 0.3), ("2:4", None), ("1:4", 0.75), ("row", 0.0), ("row", 1.0)]
)
def test_every_scope_within_a_layer(scope: str, sparsity: float | None, llama: Path) -> None:
    mask = create_wanda_mask(CheckpointWeights(llama), BATCHES, sparsity, scope=scope)
    scores = compute_wanda_importance(load_decoder(llama), BATCHES)
    assert mask == create_importance_mask(scores, sparsity, scope=scope)


def test_samples_and_weights_are_chosen_as_in_memory(llama: Path) -> None:
    model, weights = load_decoder(llama), CheckpointWeights(llama)
    options: dict[str, Any] = {"include": ["lm_head", "*.mlp.*"], "exclude": "model.layers.1"}
    mask = create_wanda_mask(weights, BATCHES, 0.5, num_samples=4, **options)
    wanted = create_importance_mask(compute_wanda_importance(model, BATCHES, 4, **options), 0.5, scope="row")
    assert mask == wanted
    assert "lm_head.weight" in mask
    assert mask.provenance["num_samples"] == "4"
    assert mask != create_wanda_mask(weights, BATCHES, 0.5, **options)


def test_a_model_in_memory_will_do() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    data = [torch.randn(5, 8, generator=torch.Generator().manual_seed(0))]
    wanted = create_importance_mask(compute_wanda_importance(model, data), 0.5, scope="row")
    assert create_wanda_mask(model, data, 0.5) == wanted


@pytest.mark.parametrize("scope", ["global", "lamp", "erk"])
def test_scopes_over_several_layers_are_refused(scope: str, llama: Path) -> None:
    with pytest.raises(ValueError, match=f"'row', 'layer' or 'N:M', got '{scope}': it compares weights of several"):
        create_wanda_mask(CheckpointWeights(llama), BATCHES, 0.5, scope=scope)


def test_what_cannot_be_scored_is_refused(llama: Path) -> None:
    weights = CheckpointWeights(llama)
    with pytest.raises(ValueError, match="at least one sample"):
        create_wanda_mask(weights, [], 0.5)
    with pytest.raises(ValueError, match=r"inputs of every weight must be found.*embed_tokens"):
        create_wanda_mask(weights, BATCHES, 0.5, include="model.embed_tokens")
    with pytest.raises(ValueError, match="sparsity must be from 0"):
        create_wanda_mask(weights, BATCHES, 1.5)

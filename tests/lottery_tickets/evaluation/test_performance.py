"""The performance of a checkpoint that is streamed is that of the model in memory, bit for bit."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import (
    CheckpointWeights,
    apply_mask,
    compute_lottery_ticket_quality,
    compute_performance,
    create_magnitude_mask,
    create_random_mask,
    masked,
)
from lottery_tickets._core.measuring.performance import Measurement, measure
from tests.lottery_tickets.checkpoints.decoders import CONFIGS, load_decoder, make_batches, make_decoder, save_decoder

BATCHES = make_batches()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(make_decoder("llama", torch.bfloat16), tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_streamed_is_in_memory(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = load_decoder(save_decoder(make_decoder(kind, dtype), tmp_path))
    weights = CheckpointWeights(tmp_path)
    mask = create_magnitude_mask(weights, 0.5)
    pruned = copy.deepcopy(model)  # of its own: dynamic positions remember what was measured before
    dense = compute_performance(weights, BATCHES)
    assert dense == compute_performance(model, BATCHES)
    assert dense["metric"] == "perplexity"
    assert dense["perplexity"] is not None
    ticket = compute_performance(weights, BATCHES, mask=mask)
    assert ticket == compute_performance(pruned, BATCHES, mask=mask)
    assert ticket["loss"] != dense["loss"]


def test_a_masked_checkpoint_is_the_pruned_one(llama: Path, tmp_path: Path) -> None:
    weights = CheckpointWeights(llama)
    mask = create_random_mask(weights, 0.5, 0)
    apply_mask(weights, mask, output=tmp_path / "pruned")
    pruned = compute_performance(CheckpointWeights(tmp_path / "pruned"), BATCHES)
    assert pruned == compute_performance(weights, BATCHES, mask=mask)


def test_heads_and_embeddings_can_be_masked(llama: Path) -> None:
    weights = CheckpointWeights(llama)
    mask = create_magnitude_mask(weights, 0.5, include=["lm_head", "model.embed_tokens", "model.layers.1.*"])
    streamed = compute_performance(weights, BATCHES, mask=mask)
    assert streamed == compute_performance(load_decoder(llama), BATCHES, mask=mask)


def test_weights_are_converted_as_transformers_does(llama: Path) -> None:
    streamed = compute_performance(CheckpointWeights(llama), BATCHES, dtype=torch.float32)
    assert streamed == compute_performance(load_decoder(llama).float(), BATCHES)
    assert streamed != compute_performance(CheckpointWeights(llama), BATCHES)


def test_quality_of_a_checkpoint_is_that_of_the_model(llama: Path) -> None:
    weights = CheckpointWeights(llama)
    mask = create_magnitude_mask(weights, 0.3, scope="row")
    quality = compute_lottery_ticket_quality(weights, mask, BATCHES)
    assert quality == compute_lottery_ticket_quality(load_decoder(llama), mask, BATCHES)
    with pytest.raises(TypeError, match="a checkpoint cannot be trained"):
        compute_lottery_ticket_quality(weights, mask, BATCHES, trainer_fn=lambda model, *_, **__: model)


def test_a_loader_that_shuffles_gives_the_order_of_the_seed(llama: Path) -> None:
    data = torch.randint(3, 64, (6, 8), generator=torch.Generator().manual_seed(3))
    samples: Any = [{"input_ids": row} for row in data]
    loader: Any = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=True)
    state = torch.get_rng_state()
    streamed = compute_performance(CheckpointWeights(llama), loader, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert streamed == compute_performance(load_decoder(llama), loader, seed=5)


def test_a_model_in_memory_is_measured_as_ever() -> None:
    model = nn.Linear(4, 3)
    data = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)]
    mask = create_magnitude_mask(model, 0.5)
    with masked(model, mask):
        figures = measure(model, data, Measurement()).figures
    found = compute_performance(model, data, mask=mask)
    assert {name: found[name] for name in figures} == figures  # type: ignore[literal-required] # of these names
    assert (found["metric"], found["performance"]) == ("accuracy", figures["accuracy"])
    with pytest.raises(ValueError, match=r"dtype must be None for a model in memory, which has one, got torch.float64"):
        compute_performance(model, data, dtype=torch.float64)


def test_what_cannot_be_measured_is_refused(llama: Path) -> None:
    weights = CheckpointWeights(llama)
    with pytest.raises(ValueError, match="the metric of a checkpoint must be a name"):
        compute_performance(weights, BATCHES, metric=lambda *_: 1.0)
    with pytest.raises(ValueError, match="at least one batch"):
        compute_performance(weights, [])
    with pytest.raises(TypeError, match="iterat"):
        compute_performance(weights, iter(BATCHES))
    with pytest.raises(TypeError, match="got a batch of type Tensor"):
        compute_performance(weights, [torch.ones(2, 3)])
    with pytest.raises(ValueError, match="was it made for another model"):
        compute_performance(weights, BATCHES, mask={"other.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="must call its layers once each, in order"):
        compute_performance(weights, BATCHES, loss_fn=_run_twice)


def _run_twice(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    def run() -> Iterator[torch.Tensor]:
        for _ in range(2):
            yield model(**{**batch, "labels": batch["input_ids"]}).loss

    first, second = run()
    return first + second

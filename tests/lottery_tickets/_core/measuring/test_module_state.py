"""What modules keep beside parameters is the same after measuring: what a forward pass wrote there is taken back."""

import pytest
import torch
from torch import nn

from lottery_tickets import compute_fisher_importance, compute_performance
from lottery_tickets._core.measuring.running import ModuleState

transformers = pytest.importorskip("transformers")

LONGEST = 16  # that the network was made for


def build_with_dynamic_embeddings() -> nn.Module:
    """Returns a tiny Llama whose rotary embeddings change with the longest text that it has seen."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    )
    model: nn.Module = transformers.LlamaForCausalLM(config).eval()
    return model


@torch.no_grad()
def test_rotary_embeddings_that_grow_give_the_same_outputs_after_measuring() -> None:
    model, tokens = build_with_dynamic_embeddings(), torch.arange(2 * LONGEST).remainder(40).repeat(2, 1)
    batches = [{"input_ids": tokens, "labels": tokens}]
    expected = build_with_dynamic_embeddings()(tokens).logits
    assert not torch.equal(expected[:, :LONGEST], model(tokens[:, :LONGEST]).logits)  # they do grow
    loss = compute_performance(model, batches)["loss"]
    assert torch.equal(model(tokens).logits, expected)
    model = build_with_dynamic_embeddings()
    with torch.enable_grad():
        compute_fisher_importance(model, batches, 2)
    assert compute_performance(model, batches)["loss"] == loss


def test_attributes_and_buffers_are_the_same_objects_and_new_ones_are_gone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    mean, names = model[0].running_mean, list(model.state_dict())
    model.notes, model.factor = [1], 1.0  # type: ignore[assignment] # of any kind
    notes = model.notes
    state = ModuleState(model)
    model.notes, model.seen = [2], True  # type: ignore[assignment] # as above
    del model.factor
    model[0].running_mean = torch.ones(2)
    model[0].register_buffer("mask", torch.ones(2))
    state.put_back()
    assert model.notes is notes
    assert model.factor == 1
    assert not hasattr(model, "seen")
    assert model[0].running_mean is mean
    assert list(model.state_dict()) == names

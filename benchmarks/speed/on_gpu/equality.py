"""Whether a GPU finds what the CPU finds: bits of masks, scores, landscapes, and that a mask is held there."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from lottery_tickets import (
    ScoringOptions,
    check_held,
    compute_fisher_importance,
    compute_loss_landscape,
    compute_pruning_robustness,
    compute_snip_importance,
    compute_taylor_importance,
    compute_wanda_importance,
    create_importance_mask,
    create_magnitude_mask,
    create_random_mask,
    hold_mask,
)
from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.bits import count_different_bits
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.workloads import build_model

SEED: Final = 0
TINY: Final[dict[str, Any]] = {
    "vocab_size": 512,
    "hidden_size": 56,
    "intermediate_size": 76,
    "num_hidden_layers": 2,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
IN_FLOAT32: Final = ScoringOptions(use_mixed_precision=False)
SCORES: Final[dict[str, Callable[[nn.Module, Any], Any]]] = {
    "fisher": lambda model, batches: compute_fisher_importance(model, batches, options=IN_FLOAT32),
    "taylor": lambda model, batches: compute_taylor_importance(model, batches, options=IN_FLOAT32),
    "snip": lambda model, batches: compute_snip_importance(model, batches, options=IN_FLOAT32),
    "wanda": compute_wanda_importance,
}


def list_equality_cases() -> Iterator[tuple[str, nn.Module, list[Any]]]:
    """Yields small models in evaluation mode, on the CPU, with batches: float32, batch norm and attention."""
    for name in ("lenet-300-100", "resnet-20"):
        torch.manual_seed(SEED)
        generator = torch.Generator().manual_seed(SEED)
        model = build_model(name, input_shape=(3, 32, 32), num_classes=10, generator=generator)
        yield name, model.eval(), [(torch.randn(16, 3, 32, 32), torch.randint(10, (16,))) for _ in range(2)]
    torch.manual_seed(SEED)
    tokens = [{"input_ids": torch.randint(500, (4, 32))} for _ in range(2)]
    yield "qwen2, tiny", Qwen2ForCausalLM(Qwen2Config(**TINY, use_cache=False)), tokens


def measure_equality(device: torch.device) -> dict[str, Any]:
    """Returns how far what is found on the device lies from what is found on the CPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return {name: compare_devices(device, model, batches) for name, model, batches in list_equality_cases()}


def compare_devices(device: torch.device, model: nn.Module, batches: list[Any]) -> dict[str, Any]:
    """Returns bits that differ between the device and the CPU, and relative differences of numbers."""
    there = copy.deepcopy(model).to(device)
    masks = {
        f"magnitude, {scope}": [create_magnitude_mask(one, 0.8, scope=scope) for one in (model, there)]
        for scope in ("global", "layer", "row", "erk", "lamp")
    }
    masks["random"] = [create_random_mask(one, 0.8, seed=SEED) for one in (model, there)]
    found: dict[str, Any] = {
        "different_bits": {name: count_different(*pair) for name, pair in masks.items()},
        "scores": {},
        "different_bits_by_score": {},
    }
    for name, compute in SCORES.items():
        pair = [compute(one, batches) for one in (model, there)]
        found["scores"][name] = max(
            float((pair[1][key].cpu().double() - score.double()).norm() / score.double().norm().clamp_min(1e-30))
            for key, score in pair[0].items()
        )
        found["different_bits_by_score"][name] = count_different(*(create_importance_mask(one, 0.8) for one in pair))
    surfaces = [compute_loss_landscape(one, batches, 3, seed=SEED)["losses"] for one in (model, there)]
    found["landscape"] = max(abs(1 - y / x) for rows in zip(*surfaces, strict=True) for x, y in zip(*rows, strict=True))
    levels = [compute_pruning_robustness(one, batches[0], (0.3, 0.6)) for one in (model, there)]
    found["robustness"] = [str(level) for level in levels[0]] == [str(level) for level in levels[1]]
    found["held_after_a_step"] = holds_on_device(there, masks["magnitude, global"][1], batches)
    return found


def count_different(one: Any, other: Any) -> int:  # noqa: ANN401 - masks
    """Returns in how many bits two masks differ."""
    return sum(count_different_bits(one.bits[name], other.bits[name]) for name in one)


def holds_on_device(model: nn.Module, mask: Any, batches: list[Any]) -> bool:  # noqa: ANN401 - a mask
    """Returns whether a mask is held through steps of an optimizer with momentum."""
    held = copy.deepcopy(model)
    hold_mask(held, mask)
    optimizer = torch.optim.SGD(held.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    device = next(held.parameters()).device
    for batch in batches:
        optimizer.zero_grad()
        compute_loss(held, move_batch(batch, device)).backward()
        optimizer.step()
    check_held(held)
    weights = dict(held.named_parameters())
    return all(not bool(weights[name].detach().cpu()[~mask[name]].any()) for name in mask)

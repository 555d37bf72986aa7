"""What cannot fit is refused before it starts, in words, with what would; what may fit is let through."""

import re
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    ScoringOptions,
    TrainerSettings,
    compute_early_bird_tickets,
    compute_fisher_importance,
    compute_iterative_magnitude_pruning,
)
from lottery_tickets._core.memory import asking, room
from lottery_tickets._core.memory.sizes import Certain, ModelSizes, find_certain

DATA = [(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))]
P = 8 * 64 + 64 * 4  # weights
W = 4 * (P + 64 + 4)  # bytes of all parameters


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))


@pytest.fixture
def asked_of_all(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if the small model were large."""
    monkeypatch.setattr(room, "SMALLEST", 0)
    return monkeypatch


def leave(monkeypatch: pytest.MonkeyPatch, num_bytes: int | None) -> None:
    monkeypatch.setattr(room, "find_free_bytes", lambda *_, **__: num_bytes)


RANKS_AND_MASKS = 2 * P + 2 * (P // 8)
NEEDED = {
    "SGD": W + RANKS_AND_MASKS + 4 * 8 * 64,
    "AdamW": W + RANKS_AND_MASKS + 3 * W,
    "a trainer_fn": W + RANKS_AND_MASKS,
    "Fisher": 4 * P,
    "pruning": 3 * W + W + P // 8,
}


def run(name: str) -> object:
    model, steps = make_model(), dict[str, Any](max_epochs=1, check_interval=1)
    if name in {"SGD", "AdamW"}:
        return compute_early_bird_tickets(model, DATA, use_sgd=name == "SGD", **steps)
    if name == "a trainer_fn":
        return compute_early_bird_tickets(model, DATA, lambda *_, **__: None, **steps)
    if name == "Fisher":
        return compute_fisher_importance(model, DATA)
    return compute_iterative_magnitude_pruning(model, DATA, 0.2, train=True, num_epochs=1, control_levels="none")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDED)
def test_one_byte_decides(name: str, asked_of_all: pytest.MonkeyPatch) -> None:
    leave(asked_of_all, NEEDED[name] - 1)
    with pytest.raises(
        ValueError, match=r"must hold .* GB beside the model .* whatever the batch, but this machine has"
    ):
        run(name)
    leave(asked_of_all, NEEDED[name])
    run(name)
    leave(asked_of_all, None)  # not known
    run(name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDED)
def test_nothing_is_asked_of_small_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(room, "find_free_bytes", lambda *given, **_: asked.append(given))
    run(name)
    assert asked == []
    monkeypatch.setattr(room, "SMALLEST", 0)
    run(name)
    assert asked


def test_a_refusal_says_what_would_fit(asked_of_all: pytest.MonkeyPatch) -> None:
    leave(asked_of_all, NEEDED["SGD"])
    with pytest.raises(ValueError, match=re.escape("left; SGD (use_sgd=True) would fit; plan_memory(model)")):
        run("AdamW")
    leave(asked_of_all, NEEDED["SGD"] - 1)
    with pytest.raises(ValueError, match="GB left; plan_memory"):  # nothing would
        run("AdamW")


def test_a_gpu_is_asked_for_what_lies_on_it_alone(asked_of_all: pytest.MonkeyPatch) -> None:
    free = {"cpu": 10 * W, "cuda:0": 4 * P - 1}
    asked_of_all.setattr(room, "find_free_bytes", lambda place, **_: free[place])
    asked_of_all.setattr(room, "unwrap", lambda _: OnGPU())
    options = ScoringOptions()
    choices: dict[str, Any] = {}
    with pytest.raises(ValueError, match=r"but cuda:0 has .* left; sums on the CPU \(ScoringOptions\(offload="):
        asking.ask_before_scores(make_model(), 1, options, choices)
    asking.ask_before_scores(make_model(), 1, ScoringOptions(offload="cpu"), choices)
    free["cuda:0"] += 1
    asking.ask_before_scores(make_model(), 1, options, choices)
    with pytest.raises(ValueError, match=r"scoring weights must hold .* cuda:0 has"):
        asking.ask_before_scores(make_model(), 1, ScoringOptions(standard_errors=True), choices)
    asking.ask_before_early_bird(make_model(), TrainerSettings(), choices)
    free["cpu"] = W  # too little for the starting weights and the ranks
    with pytest.raises(ValueError, match="but this machine has"):
        asking.ask_before_early_bird(make_model(), TrainerSettings(), choices)


class OnGPU:
    """What is asked of a model where it lies."""

    @staticmethod
    def parameters() -> Any:  # noqa: ANN401 - an iterator of what stands for a parameter
        return iter([Mock(spec=Tensor, device=torch.device("cuda:0"), nbytes=W)])


def test_sizes_of_a_model_are_the_same_without_values_and_ties_count_once() -> None:
    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = nn.Sequential(
                nn.Embedding(10, 8), nn.Linear(8, 10, bias=False), nn.BatchNorm1d(10), nn.Linear(10, 3)
            )
        model[1].weight = model[0].weight
        model[3].bias.requires_grad_(False)
        found.append(ModelSizes.of_model(model))
    sizes, without_values = found
    assert sizes == without_values
    assert sizes.num_params == 80 + 20 + 30 + 3
    assert sizes.weight_bytes == 4 * sizes.num_params
    assert sizes.gradient_bytes == sizes.weight_bytes - 12
    assert sizes.buffer_bytes == 4 * 20 + 8
    assert sizes.largest_bytes == 320
    assert dict(sizes.prunable) == {"3.weight": 30}
    assert sizes.largest_prunable_bytes == 120
    with pytest.raises(ValueError, match="a model must have at least one parameter, got 0"):
        ModelSizes.of_model(nn.ReLU())
    with pytest.raises(ValueError, match="matches"):
        ModelSizes.of_model(make_model(), include="no such")


def test_states_of_8_bits_take_a_quarter_of_float32() -> None:
    sizes = ModelSizes.of_model(make_model())
    full, packed = (find_certain("early_bird_adamw", sizes, adam_bytes=each) for each in (None, 1))
    assert full.device["optimizer"] == 2 * W == 4 * packed.device["optimizer"]
    assert find_certain("early_bird_sgd", sizes, momentum=True).device["optimizer"] == W
    assert find_certain("early_bird_sgd", sizes) == Certain({"gradients": 2048}, packed.host)

"""What the tests of the light trainer share: optimizers, models, batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from tests.data import make_data, make_tokens, split
from tests.models import UsedTwice, make_convolutions, make_language_model, make_mlp

LR = 0.1

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.1},
    "adamw": {"use_sgd": False, "weight_decay": 0.1},
}

each_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: make_mlp(torch.float32),
    "used twice": UsedTwice,
    "convolutions": lambda: make_convolutions().float(),
    "tied llama": lambda: make_language_model("tied Llama"),
    "gpt2": lambda: make_language_model("GPT2"),
}


def make_batches(kind: str) -> list[Any]:
    if kind in {"tied llama", "gpt2"}:
        tokens = make_tokens()
        return [{key: value[i : i + 2] for key, value in tokens.items()} for i in (0, 2, 4)]
    return list(split(make_data(torch.float32, (2, 4, 4) if kind == "convolutions" else (5,)), 4))


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(got: nn.Module, expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


# ------------------------------------------------------------------------------------------------------------- pieces


def train_pieces(learning_rate: float, max_batch_size: int | None, options: dict[str, Any]) -> Tensor:
    """Returns the weights after two batches of 12 and 7 samples, of which the largest pieces are as given."""
    model, data = make_mlp(), make_data()
    batches = [data, (data[0][:7], data[1][:7])]
    settings = TrainerSettings(learning_rate=learning_rate, max_batch_size=max_batch_size, **options)
    LightTrainer(model, batches, settings).train_epochs(1)
    return torch.cat([p.detach().flatten() for p in model.parameters()])

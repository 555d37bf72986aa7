"""A caller's model, data and trainer, and a short run of them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lottery_tickets import compute_iterative_magnitude_pruning, compute_sparsity
from lottery_tickets._core.states import copy_state
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.experiments.pruning_results import PruningResults
from tests.models import make_mlp

INPUTS, TARGETS = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3

DATA = [(INPUTS[i : i + 8], TARGETS[i : i + 8]) for i in range(0, 24, 8)]


def make_model(seed: int = 0) -> nn.Sequential:
    return make_mlp(torch.float32, (6, 10, 3), seed=seed)


class Trainer:
    """Trains by SGD with momentum and decay, and notes the state each training starts from and ends in."""

    def __init__(self, answer: Callable[[nn.Module], nn.Module | None] = lambda _: None) -> None:
        self.answer = answer
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []
        self.epochs: list[int] = []

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module | None:
        self.starts.append(copy_state(model))
        self.epochs.append(epochs)
        answer = self.answer(model)
        trained = answer if answer is not None and compute_sparsity(answer) == compute_sparsity(model) else model
        optimizer = torch.optim.SGD(trained.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        trained.train()
        for _ in range(epochs):
            for inputs, targets in dataloader:
                nn.functional.cross_entropy(trained(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
        self.ends.append(copy_state(trained))
        return answer


def run(model: nn.Module, trainer: TrainerFunction, target: float = 0.6, **settings: Any) -> PruningResults:  # noqa: ANN401 - settings of many types
    defaults: dict[str, Any] = {"num_epochs": 2, "control_levels": "none", "prune_rates": 0.3}
    return compute_iterative_magnitude_pruning(model, DATA, target, trainer_fn=trainer, **{**defaults, **settings})


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

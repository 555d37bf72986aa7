"""LeNet-300-100 on the digits, searched for a ticket."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import (
    TrainerSettings,
    compute_early_bird_tickets,
)
from lottery_tickets._core.states import hash_state
from lottery_tickets.early_bird.watcher import EarlyBirdResults
from tests.models import load_digits, make_lenet


def make_digits_loader(batch_size: int = 60) -> DataLoader[Any]:
    data = load_digits().data
    return DataLoader(TensorDataset(data.train_inputs, data.train_targets), batch_size, shuffle=True)


def make_held_out() -> list[tuple[Tensor, Tensor]]:
    """Returns batches that no training sees."""
    data = load_digits().data
    return list(zip(data.validation_inputs.split(64), data.validation_targets.split(64), strict=True))


def make_arguments(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - of many types
    """Returns arguments of a short run; those that the trainer has are put into its settings."""
    own = {field.name for field in fields(TrainerSettings)} & arguments.keys()
    training = {"learning_rate": 0.1, "momentum": 0.9, **{name: arguments.pop(name) for name in own}}
    return {"max_epochs": 6, "check_interval": 1, "training": TrainerSettings(**training), **arguments}


def find_digits(**arguments: Any) -> tuple[EarlyBirdResults, nn.Module]:  # noqa: ANN401 - of many types
    model = make_lenet()
    return compute_early_bird_tickets(model, make_digits_loader(), **make_arguments(**arguments)), model


def train_with_sgd(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


def strip(results: EarlyBirdResults) -> dict[str, Any]:
    """What must be equal in two runs: all but the time that checks took."""
    checks = [{name: value for name, value in check.items() if name != "seconds"} for check in results["checkpoints"]]
    tensors = {name: hash_state(results[name]) for name in ("final_rankings", "starting_weights")}
    return {**results, **tensors, "checkpoints": checks, "final_mask": results["final_mask"].digest}

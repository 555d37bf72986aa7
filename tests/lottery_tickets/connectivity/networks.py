"""A small network with its data, and all that must stay as it was."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets._core.states import copy_state, hash_state
from tests.models import make_mlp

Model = nn.Module

SIZES: Final = (4, 16, 3)


def make_network(seed: int = 0) -> nn.Sequential:
    return make_mlp(torch.float32, SIZES, seed=seed, activation=nn.ReLU)


def make_dataset() -> TensorDataset:
    inputs = torch.randn(60, SIZES[0], generator=torch.Generator().manual_seed(5))
    return TensorDataset(inputs, inputs[:, : SIZES[2]].argmax(1))


def make_loader(seed: int | None = None) -> DataLoader[Any]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(make_dataset(), batch_size=10, shuffle=True, generator=generator)


def train(model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for inputs, targets in dataloader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


# --------------------------------------------------------------------------------------------------------- nothing left


def describe_everything(model: Model, loader: DataLoader[Any]) -> tuple[Any, ...]:
    assert loader.generator is not None
    # Not Python's generator: the checks of types in tests draw from it.
    generators = [torch.get_rng_state(), loader.generator.get_state()]
    numbers = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return (
        hash_state(copy_state(model)),
        hash_state({str(i): tensor for i, tensor in enumerate([*generators, *numbers])}),
        [module.training for module in model.modules()],
        [list(module._forward_hooks) for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [id(parameter) for parameter in model.parameters()],
        np.random.get_state()[1].tolist(),  # type: ignore[index] # noqa: NPY002 - the global one
    )

"""Weights drawn for the tests of ranks, and the kernels that rank them."""

import torch
from torch import Tensor

from lottery_tickets.early_bird.snapshots import Backend

BACKENDS: tuple[Backend, ...] = ("reference", "cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))

"""A model and a mask for it."""

import torch
from torch import nn

from lottery_tickets import Mask


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 200), nn.Tanh(), nn.Linear(200, 4))


def make_mask(model: nn.Module, density: float = 0.3) -> Mask:
    kept = {n: torch.rand(p.shape) < density for n, p in model.named_parameters() if p.dim() > 1}
    return Mask.from_tensors(kept)

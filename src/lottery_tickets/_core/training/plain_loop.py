"""A plain loop over steps, with any optimizer."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.training.steps_done import count_steps


def train_steps(
    model: nn.Module,
    batches: Iterator[Any],
    optimizer: torch.optim.Optimizer,
    *,
    first_step: int,
    num_steps: int,
    lr_factor: Callable[[int], float],
    after_step: Callable[[int], None],
    loss_fn: LossFunction | None = None,
) -> None:
    """Trains a model in place from `first_step` up to `num_steps`.

    Args:
        model: Put in training mode; its gradients are gone afterwards.
        batches: Gives the batch of `first_step` first.
        optimizer: Over the model's parameters, at its base learning rates.
        first_step: Steps already done.
        num_steps: Steps done at the end.
        lr_factor: What the base learning rates are multiplied with at a step (0-based).
        after_step: Called with the number of steps done.
        loss_fn: See `compute_loss`.
    """
    model.train()
    base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
    for step in range(first_step, num_steps):
        factor = lr_factor(step)
        for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = base_lr * factor
        loss = compute_loss(model, next(batches), loss_fn)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        after_step(step + 1)
        count_steps()

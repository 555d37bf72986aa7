"""The default trainer: a plain loop over steps, and the evaluation that goes with it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lottery_tickets._core.measuring.performance import Measurement
from lottery_tickets._core.objective import LossFunction, compute_loss

EVALUATION_BATCH = 1000  # samples; bounds the memory of activations


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


def evaluate_tensors(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Returns mean cross-entropy (nats) and accuracy (in [0, 1]) of a classifier over tensors in memory."""
    pairs = zip(inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH), strict=True)
    loss, accuracy = evaluate_batches(model, pairs)
    if accuracy is None:
        message = "a classifier must be evaluated on class indices"
        raise TypeError(message)
    return loss, accuracy


@torch.no_grad()
def evaluate_batches(
    model: nn.Module, batches: Iterable[Any], loss_fn: LossFunction | None = None
) -> tuple[float, float | None]:
    """Returns the mean loss and, where batches compute one cross-entropy, the accuracy.

    The model is evaluated in evaluation mode and comes back in the modes it had.

    Raises:
        ValueError: When there is no batch, or the loss is not finite.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        figures = Measurement(loss_fn)(model, batches).figures
    finally:
        for module, training in modes.items():
            module.training = training
    loss = figures["loss"]
    if loss is None:
        raise ValueError("the loss must be finite, but evaluation gave NaN or infinity; lower the learning rate")
    return loss, figures["accuracy"]

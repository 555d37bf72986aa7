"""The default trainer: a plain loop over steps, and the evaluation that goes with it."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lottery_tickets._core.objective import LossFunction, compute_logits, compute_loss

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
    """Returns the mean loss and, where batches are pairs with class indices and no `loss_fn` is given, the accuracy.

    The model is evaluated in evaluation mode and comes back in the modes it had.

    Raises:
        ValueError: When there is no batch, or the loss is not finite.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        totals = [_evaluate_batch(model, batch, loss_fn) for batch in batches]
    finally:
        for module, training in modes.items():
            module.training = training
    num_samples = sum(n for n, _, _ in totals)
    if num_samples == 0:
        message = "the data to evaluate on must hold at least one batch, but got none; was the iterator used up?"
        raise ValueError(message)
    loss = sum(total for _, total, _ in totals) / num_samples
    if not math.isfinite(loss):
        message = f"the loss must be finite, but evaluation gave {loss}; training diverged, so lower the learning rate"
        raise ValueError(message)
    correct = [c for _, _, c in totals if c is not None]
    return loss, sum(correct) / num_samples if len(correct) == len(totals) else None


def _evaluate_batch(model: nn.Module, batch: Any, loss_fn: LossFunction | None) -> tuple[int, float, int | None]:  # noqa: ANN401 - any batch
    """Returns samples, summed loss and correct answers of one batch; a batch that is no pair counts as one sample."""
    pair = None if loss_fn is not None else compute_logits(model, batch)
    if pair is None:
        return 1, float(compute_loss(model, batch, loss_fn)), None
    logits, targets = pair
    total = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return len(targets), float(total), int((logits.argmax(-1) == targets).sum())

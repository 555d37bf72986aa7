"""A loss landscape the plain way: directions stored, the model copied, its weights written, one point after another."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Figures = tuple[float, float | None]
Evaluate = Callable[[nn.Module, Sequence[Any]], Figures]


def normalise(direction: Tensor, weight: Tensor, output_dims: Sequence[int]) -> Tensor:
    """Returns the direction with each filter as long as the weight's, one filter at a time."""
    scaled = torch.zeros_like(direction)
    sizes = [range(weight.shape[dim]) for dim in output_dims]
    for place in torch.cartesian_prod(*map(torch.tensor, sizes)).view(-1, len(output_dims)).tolist():
        at: list[Any] = [slice(None)] * weight.ndim
        for dim, number in zip(output_dims, place, strict=True):
            at[dim] = number
        length = direction[tuple(at)].double().norm()
        if length:
            scale = weight[tuple(at)].double().norm() / length
            scaled[tuple(at)] = (direction[tuple(at)].double() * scale).to(direction.dtype)
    return scaled


def measure_plane(
    model: nn.Module,
    data: Sequence[Any],
    directions: Sequence[Mapping[str, Tensor]],
    grid: tuple[Sequence[float], Sequence[float]],
    evaluate: Evaluate,
) -> list[list[Figures]]:
    """Returns the figures at each point, rows of y."""
    moved = copy.deepcopy(model).eval()
    own, targets = dict(model.named_parameters()), dict(moved.named_parameters())
    rows = []
    for y in grid[1]:
        row = []
        for x in grid[0]:
            with torch.no_grad():
                for name, first in directions[0].items():
                    shift = x * first + y * directions[1][name]
                    targets[name].copy_(own[name].to(shift.dtype) + shift)
                row.append(evaluate(moved, data))
        rows.append(row)
    return rows


def evaluate_pairs(model: nn.Module, data: Sequence[Any]) -> Figures:
    """Returns mean cross-entropy and accuracy of pairs, each batch weighted by its size."""
    loss = num_right = num_samples = 0.0
    for inputs, targets in data:
        logits = model(inputs).detach()
        loss += float(nn.functional.cross_entropy(logits, targets)) * len(targets)
        num_right += int((logits.argmax(1) == targets).sum())
        num_samples += len(targets)
    return loss / num_samples, num_right / num_samples


def evaluate_language(model: nn.Module, data: Sequence[Any]) -> Figures:
    """Returns the mean loss of a language model on batches of one size."""
    losses = [float(model(**batch, labels=batch["input_ids"]).loss.detach()) for batch in data]
    return sum(losses) / len(losses), None

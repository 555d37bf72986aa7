"""What a landscape may be asked for: its arguments, checked."""

from numbers import Real
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from lottery_tickets._core.checks import check_count, check_restartable
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.weights import Weights

AXES: Final = ("x", "y")


def check_model_and_data(model: object, dataloader: object) -> None:
    """Raises where a model cannot be measured, or data cannot be iterated anew."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            "the model must run in Python, but TorchScript hides what it reads; pass the model it is made of"
        )
    check_restartable(dataloader)
    if not hasattr(dataloader, "__iter__") and not hasattr(dataloader, "__getitem__"):
        raise TypeError(f"dataloader must give batches, got {type(dataloader).__name__}; pass a DataLoader or a list")


def check_weights(model: nn.Module, weights: Weights) -> None:
    """Raises where a weight that moves is no plain tensor, or any weight is not finite."""
    for moved_name, moved in weights.tensors.items():
        if type(moved.data) is not Tensor:
            kind = type(moved.data).__name__
            raise TypeError(f"{moved_name!r} must be a plain tensor, but is a {kind}; gather the model first")
    for name, tensor in unwrap(model).named_parameters():
        values = tensor.detach()
        if values.numel() and values.is_floating_point() and not all(map(torch.isfinite, values.aminmax())):
            raise ValueError(f"weights must be finite, but {clean_name(name)!r} holds NaN or infinity; did it diverge?")


def check_grid(grid_points: object) -> tuple[int, int]:
    """Returns how many points there are along x and along y."""
    allowed = "an integer of at least 1, or two of them for x and y"
    both = grid_points if isinstance(grid_points, tuple | list) else (grid_points, grid_points)
    if len(both) != len(AXES):
        raise ValueError(f"grid_points must be {allowed}, got {grid_points!r}")
    num_x, num_y = (check_count("grid_points", number, allowed) for number in both)
    return num_x, num_y


def check_span(span: object) -> tuple[float, float]:
    """Returns how far the plane reaches along x and along y."""
    allowed = "a finite number above 0, or two of them for x and y"
    given = 1.0 if span is None else span
    both = _check_numbers(given if isinstance(given, tuple | list) else (given, given), span, allowed)
    if min(both) <= 0:
        raise ValueError(f"span must be {allowed}, got {span!r}")
    return both


def check_ends(span: object) -> tuple[float, float]:
    """Returns where the line starts and stops."""
    allowed = "two finite numbers on the line to end_state, the lower first, such as (0, 1)"
    ends = _check_numbers((0.0, 1.0) if span is None else span, span, allowed)
    if ends[0] >= ends[1]:
        raise ValueError(f"span must be {allowed}, got {span!r}")
    return ends


def _check_numbers(numbers: object, span: object, allowed: str) -> tuple[float, float]:
    """Returns two finite numbers."""
    if not isinstance(numbers, tuple | list) or not all(
        isinstance(number, Real) and not isinstance(number, bool) for number in numbers
    ):
        raise TypeError(f"span must be {allowed}, got {span!r}")
    if len(numbers) != len(AXES) or not all(np.isfinite(float(number)) for number in numbers):
        raise ValueError(f"span must be {allowed}, got {span!r}")
    return float(numbers[0]), float(numbers[1])

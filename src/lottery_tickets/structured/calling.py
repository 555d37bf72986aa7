"""Calling any model on example inputs, comparing what two models give, and how long they take."""

import contextlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from lottery_tickets._core.measuring.running import evaluating


def call(model: nn.Module, inputs: object) -> Any:  # noqa: ANN401 - whatever a model gives
    """Returns what a model gives for a tensor, a tuple or list of arguments, or a dict of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def find_inputs(batch: Any, given: object = None) -> object:  # noqa: ANN401 - of any kind
    """Returns what a model is called with: what is given, else the inputs of a batch; None where it does not say."""
    if given is None and isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if name != "labels"}
    return batch[0] if given is None and isinstance(batch, tuple | list) else given


def list_outputs(outputs: object) -> list[Tensor]:
    """Returns the tensors of floating-point numbers in what a model gave, but for keys and values of earlier tokens."""
    if isinstance(outputs, Mapping):
        outputs = {name: output for name, output in outputs.items() if name != "past_key_values"}
    leaves = _pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def compare_outputs(outputs: object, others: object) -> float:
    """Returns the largest difference between two outputs, relative to the largest finite number of the second.

    Infinite where one is NaN or infinite and the other is not.

    Raises:
        ValueError: When they are of other shapes.
    """
    largest, difference = 0.0, 0.0
    for one, other in zip(list_outputs(outputs), list_outputs(others), strict=True):
        if one.shape != other.shape:
            raise ValueError(f"outputs must have the shape {tuple(other.shape)}, but have {tuple(one.shape)}")
        if other.numel():
            same = (one == other) | (one.isnan() & other.isnan())
            gaps = (one - other).abs().masked_fill(same, 0).nan_to_num(torch.inf, torch.inf)
            largest = max(largest, float(other.abs().nan_to_num(0, 0).max()))
            difference = max(difference, float(gaps.max()))
    return difference / largest if largest else difference


@torch.no_grad()
def time_in_turns(models: Mapping[str, nn.Module], inputs: object, num_turns: int = 5) -> dict[str, float]:
    """Returns the median seconds of a forward pass of each model, in evaluation mode.

    Each is run once before; then all take turns, so that what slows the machine slows each alike.

    Args:
        models: By name.
        inputs: What they are called with.
        num_turns: Passes of each that are timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with contextlib.ExitStack() as modes:
        for model in models.values():
            modes.enter_context(evaluating(model))
        for turn in range(1 + num_turns):
            for name, model in models.items():
                begun = time.perf_counter()
                call(model, inputs)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if turn:
                    seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in seconds.items()}

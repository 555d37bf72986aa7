"""Calling any model on example inputs, and comparing what two models give."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree


def call(model: nn.Module, inputs: object) -> Any:  # noqa: ANN401 - whatever a model gives
    """Returns what a model gives for a tensor, a tuple or list of arguments, or a dict of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def list_outputs(outputs: object) -> list[Tensor]:
    """Returns the tensors of floating-point numbers in what a model gave, but for keys and values of earlier tokens."""
    if isinstance(outputs, Mapping):
        outputs = {name: output for name, output in outputs.items() if name != "past_key_values"}
    leaves = _pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def compare_outputs(outputs: object, others: object) -> float:
    """Returns the largest difference between two outputs, relative to the largest number of the second.

    Raises:
        ValueError: When they are of other shapes.
    """
    largest, difference = 0.0, 0.0
    for one, other in zip(list_outputs(outputs), list_outputs(others), strict=True):
        if one.shape != other.shape:
            raise ValueError(f"outputs must have the shape {tuple(other.shape)}, but have {tuple(one.shape)}")
        if other.numel():
            largest = max(largest, float(other.abs().max()))
            difference = max(difference, float((one - other).abs().max()))
    return difference / largest if largest else difference

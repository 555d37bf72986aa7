"""Statistics of weights layer by layer, of a model or of a checkpoint of any size."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypedDict

import numpy as np
from torch import Tensor, nn

from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.weights import READERS, Weight, WeightSource

WEIGHTS_PER_BLOCK: Final = 1 << 20


class LayerStatistics(TypedDict):
    """Statistics of one layer's weights.

    Attributes:
        shape: Of the weight.
        dtype: As it is stored, such as "bfloat16".
        num_weights: How many there are.
        num_zeros: How many of them are zero.
        num_not_finite: How many are NaN or infinite; these are left out of what follows.
        mean: Of the weights; None where there are none.
        std: Their standard deviation, of the population.
        norm: The square root of the sum of their squares.
        least: The least weight.
        greatest: The greatest weight.
    """

    shape: list[int]
    dtype: str
    num_weights: int
    num_zeros: int
    num_not_finite: int
    mean: float | None
    std: float | None
    norm: float
    least: float | None
    greatest: float | None


def compute_layer_statistics(
    model: nn.Module | Mapping[str, Tensor] | WeightSource,
    *,
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> dict[str, LayerStatistics]:
    """Returns statistics of each prunable weight, from one pass over all of them.

    Sums are float64, of blocks of 2^20 weights in order, so the figures depend neither on where the weights lie nor on
    the number of threads.

    Args:
        model: A model, a mapping of weights by name, or a `CheckpointWeights`.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Raises:
        ValueError: As `create_magnitude_mask`, but weights that are NaN or infinite are counted.

    Examples:
        >>> import torch
        >>> compute_layer_statistics({"fc.weight": torch.tensor([[3.0, 0.0], [-4.0, 1.0]])})["fc.weight"]["num_zeros"]
        1
    """
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(weights, pool.map(_describe, weights.values()), strict=True))


def _describe(weight: Weight) -> LayerStatistics:
    num_zeros = num_not_finite = 0
    sums, squares, extremes = [], [], []
    for block in weight.cut(WEIGHTS_PER_BLOCK):
        values = weight.read(*block).double().cpu().numpy()
        is_finite = np.isfinite(values)
        if not is_finite.all():
            num_not_finite += int(values.size - is_finite.sum())
            values = values[is_finite]
        num_zeros += int(values.size - np.count_nonzero(values))
        sums.append(float(values.sum()))
        squares.append(float(np.square(values).sum()))
        extremes += [float(values.min()), float(values.max())] if values.size else []
    number, square = weight.size - num_not_finite, math.fsum(squares)
    mean = math.fsum(sums) / number if number else None
    return {
        "shape": list(weight.shape),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "num_weights": weight.size,
        "num_zeros": num_zeros,
        "num_not_finite": num_not_finite,
        "mean": mean,
        "std": None if mean is None else math.sqrt(max(square / number - mean**2, 0.0)),
        "norm": math.sqrt(square),
        "least": min(extremes, default=None),
        "greatest": max(extremes, default=None),
    }

"""Weights before and after, side by side: the same names, shapes and dtypes, read block by block wherever they lie."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.reading import list_names
from lottery_tickets._core.weights import INTEGERS_BY_BYTES, Weight, Weights, WeightSource

AnyWeights = nn.Module | Mapping[str, Tensor] | WeightSource
Combine = Callable[[Tensor, Tensor], Tensor]

WEIGHTS_PER_BLOCK: Final = 1 << 20  # a multiple of 8


@final
class Difference(Weight):
    """What is computed of each weight before and after, where it is read; 0 where it did not change as stored.

    Args:
        before: The weight.
        after: Of the same shape and dtype.
        combine: Of values before and after, in float32 or float64, elementwise.
    """

    def __init__(self, before: Weight, after: Weight, combine: Combine) -> None:
        self.name, self.output_dims = before.name, before.output_dims
        self.before, self.after = before, after
        self._combine = combine

    @property
    def tensor(self) -> Tensor:
        """There is no such parameter.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"the change of {self.name!r} is no parameter, so it cannot be trained or differentiated")

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        return self.before.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of what is computed."""
        return find_wide(self.before.dtype)

    @property
    def device(self) -> torch.device:
        """That of the weight before."""
        return self.before.device

    @property
    def is_in_memory(self) -> bool:
        """Whether both are."""
        return self.before.is_in_memory and self.after.is_in_memory

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns what is computed of elements start to stop."""
        return self._compute(self.before.read(start, stop, order), self.after.read(start, stop, order))

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns what is computed of the elements at these positions."""
        return self._compute(self.before.pick(positions), self.after.pick(positions))

    def _compute(self, before: Tensor, after: Tensor) -> Tensor:
        after = after.to(before.device)
        computed = self._combine(before.to(self.dtype), after.to(self.dtype))
        # Equal numbers give 0, but for infinity less infinity, and NaN. Their sum is cheap, and tells.
        if not math.isfinite(computed.sum().item()):
            computed.masked_fill_(~is_changed(before, after), 0)
        return computed


def subtract(before: Tensor, after: Tensor) -> Tensor:
    """Returns by how much each weight changed."""
    return after - before


def divide(before: Tensor, after: Tensor) -> Tensor:
    """Returns each change over the larger magnitude of before and after, from 0 to 2; 0 where both are zero."""
    largest = torch.maximum(before.abs(), after.abs())
    return torch.where(largest == 0, 0.0, after / largest - before / largest)


def pair_weights(
    before: AnyWeights, after: AnyWeights, include: Choices | None, exclude: Choices | None
) -> tuple[Weights, Weights]:
    """Returns the prunable weights before, and the same ones after in the same order.

    Args:
        before: A model, a mapping of weights by name, or a checkpoint.
        after: Likewise.
        include: Replaces the default choice of weights.
        exclude: Removes from the choice.

    Raises:
        TypeError: When one is none of the three.
        ValueError: When they have other names, shapes or dtypes, or are sharded.
    """
    first, second = (find_prunable_weights(one, include=include, exclude=exclude) for one in (before, after))
    if odd := sorted(first.keys() ^ second.keys()):
        raise ValueError(
            f"before and after must have the same weights, but {list_names(odd)} "
            f"{'stands' if len(odd) == 1 else 'stand'} on one side only; are they of one model? Choose what both have "
            "by include="
        )
    if first.shards is not None or second.shards is not None:
        raise ValueError("weights before and after must lie in one process, but are sharded; give checkpoints")
    for name, weight in first.items():
        found = second[name]
        if found.shape != weight.shape:
            raise ValueError(
                f"before and after must have the same shapes, but {name!r} has {tuple(weight.shape)} before and "
                f"{tuple(found.shape)} after; are they of one model?"
            )
        if found.dtype != weight.dtype:
            raise ValueError(
                f"before and after must be stored alike, but {name!r} is {weight.dtype} before and {found.dtype} "
                "after; cast one of them, which changes weights by itself"
            )
    return first, second.part(first)


def find_differences(before: Weights, after: Weights, combine: Combine) -> Weights:
    """Returns what is computed of each weight before and after, as weights."""
    return Weights(Difference(weight, after[name], combine) for name, weight in before.items())


def is_changed(before: Tensor, after: Tensor) -> Tensor:
    """Returns where values differ as they are stored, bit for bit; but zeros of either sign are the same."""
    words = INTEGERS_BY_BYTES[before.element_size()]
    differs = before.view(words) != after.view(words)
    places = differs.nonzero().view(-1)
    wide = find_wide(before.dtype)  # torch does not compare the narrowest floats
    zeros = (before.view(words)[places].view(before.dtype).to(wide) == 0) & (
        after.view(words)[places].view(after.dtype).to(wide) == 0
    )
    differs[places[zeros]] = False
    return differs


def find_wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the narrowest dtype in which the difference of two numbers of a dtype is rounded once."""
    return torch.float64 if dtype == torch.float64 else torch.float32

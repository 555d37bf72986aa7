"""What is averaged over samples: a function of a weight's gradient in one sample, named as in the literature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor


@dataclass(frozen=True)
class Value:
    """A function of one sample's gradient of a weight; zero where the gradient is zero.

    Attributes:
        name: What it is called in reports.
        of_block: From gradients (samples, rows, columns) and weights (rows, columns) to the same shape, or to
            (samples, rows, 1) for one value a row.
        of_factor: When the value of a product is the product of the values (|ab| = |a| |b|): the value itself. The sum
            over samples of one position each is then a single matrix product.
        needs_weights: Whether `of_block` looks at the weights.
        is_signed: Whether it can be negative, and so its mean.
    """

    name: str
    of_block: Callable[[Tensor, Tensor], Tensor]
    of_factor: Callable[[Tensor], Tensor] | None = None
    needs_weights: bool = False
    is_signed: bool = False

    def squared(self) -> "Value":
        """Returns the square of this value, whose mean gives its standard error."""
        factor = self.of_factor
        return Value(
            f"({self.name})^2",
            lambda gradients, weights: self.of_block(gradients, weights).square(),
            None if factor is None else lambda numbers: factor(numbers).square(),
            self.needs_weights,
        )


def _sum_unit(gradients: Tensor, weights: Tensor) -> Tensor:
    """Returns for each row the sum of gradient * weight: what removing the unit does to the loss, to first order."""
    return (gradients * weights).sum(-1, keepdim=True)


GRADIENT: Final = Value("gradient", lambda gradients, _: gradients, lambda factor: factor, is_signed=True)
MAGNITUDE: Final = Value("|gradient|", lambda gradients, _: gradients.abs(), torch.abs)
SQUARE: Final = Value("gradient^2", lambda gradients, _: gradients.square(), torch.square)
UNIT_MAGNITUDE: Final = Value("|unit gradient * weight|", lambda g, w: _sum_unit(g, w).abs(), needs_weights=True)
UNIT_SQUARE: Final = Value("(unit gradient * weight)^2", lambda g, w: _sum_unit(g, w).square(), needs_weights=True)

"""The formulas of scores that are means over samples of something of their gradients."""

from collections.abc import Mapping
from typing import Any, Final

import torch

from lottery_tickets._core.gradients.values import GRADIENT, MAGNITUDE, SQUARE, UNIT_MAGNITUDE, UNIT_SQUARE
from lottery_tickets.scores.gradient_scores import Formula

FISHER: Final = Formula("mean of gradient^2", SQUARE)
SALIENCY: Final = Formula("0.5 * mean of gradient^2 * w^2", SQUARE, lambda weight: 0.5 * weight.square())
TAYLOR: Final = {
    ("weight", "absolute"): Formula("mean of |gradient * w|", MAGNITUDE, torch.abs),
    ("weight", "squared"): Formula("mean of (gradient * w)^2", SQUARE, torch.square),
    ("unit", "absolute"): Formula("mean of |sum over the unit of gradient * w|", UNIT_MAGNITUDE),
    ("unit", "squared"): Formula("mean of (sum over the unit of gradient * w)^2", UNIT_SQUARE),
}
GRADIENTS: Final = {
    "magnitudes": Formula("mean of |gradient|", MAGNITUDE),
    "gradients": Formula("|mean of gradient|", GRADIENT),
}
HYBRID: Final = {
    "fisher": FISHER,
    "saliency": SALIENCY,
    "taylor": TAYLOR["weight", "absolute"],
    "gradient": GRADIENTS["magnitudes"],
}


def find_formula(argument: str, key: Any, formulas: Mapping[Any, Formula]) -> Formula:  # noqa: ANN401 - a name or two
    """Returns the formula of a name; an unknown one is a ValueError that lists those that there are.

    Args:
        argument: What the name was given as.
        key: The name, or the two.
        formulas: By name.
    """
    if key not in formulas:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, formulas))}, got {key!r}")
    return formulas[key]

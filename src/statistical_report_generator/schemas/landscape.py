"""The type of a loss landscape."""

import itertools
from typing import Any, Literal, NotRequired

from statistical_report_generator.schemas.common import Count, Part, Performance, Result, Share, need_lengths


class Rise(Part):
    """How much the loss rises on one ellipse around the centre."""

    radius: float
    mean_rise: float | None
    largest_rise: float | None


class Landscape(Result):
    """The losses around a network, see `compute_loss_landscape`.

    Attributes:
        mode: On a plane of random directions, or on the line to another network.
        x: Ascending.
        y: Ascending.
        losses: Rows are y; None where not finite or not measured yet.
        accuracies: As the losses.
        centre: The network itself.
    """

    mode: Literal["plane", "line"]
    x: list[float]
    y: list[float]
    losses: list[list[float | None]]
    accuracies: list[list[Share | None]]
    centre: Performance
    num_nonfinite: NotRequired[Count]
    num_measured: NotRequired[Count]
    sharpness: NotRequired[list[Rise]]
    normalisation: NotRequired[str | None]
    settings: NotRequired[dict[str, Any]]
    network: NotRequired[str]


def check_landscape(found: Landscape) -> Landscape:
    """Returns a landscape whose rows fit its axes, which ascend; raises ValueError otherwise."""
    x, y = found["x"], found["y"]
    if not x or not y:
        raise ValueError("a landscape must have a point, got none")
    for name, axis in (("x", x), ("y", y)):
        if any(second <= first for first, second in itertools.pairwise(axis)):
            raise ValueError(f"{name} must ascend, and each place be there once, got {axis[:4]}")
    for name, rows in (("losses", found["losses"]), ("accuracies", found["accuracies"])):
        need_lengths(len(y), **{f"the rows of {name}": rows})
        for row in rows:
            need_lengths(len(x), **{f"each row of {name}": row})
    return found

"""How much a function that is known on a grid rises around the centre: sharpness in figures."""

import math
from collections.abc import Sequence
from typing import Final, TypedDict

RADII: Final = (0.25, 0.5, 0.75, 1.0)  # of the span
NUM_ANGLES: Final = 64

Rows = Sequence[Sequence[float | None]]


class LossRise(TypedDict):
    """The rise of a loss on one ellipse around the centre of a grid.

    Attributes:
        radius: As a share of the span in each direction.
        mean_rise: Mean over 64 equally spaced angles of the loss less that of the centre; None when a loss that is
            needed is not finite.
        largest_rise: The largest of them, or None.
    """

    radius: float
    mean_rise: float | None
    largest_rise: float | None


def find_rises(losses: Rows, centre: float | None) -> list[LossRise]:
    """Returns the rises at a quarter, a half, three quarters and all of the span, between grid points bilinearly.

    Args:
        losses: Of a grid that is equally spaced and symmetric about the centre; rows are y.
        centre: The loss at the centre.

    Returns:
        One entry a radius; none for a grid with less than two points in a direction.
    """
    if min(len(losses), len(losses[0])) < 2:  # noqa: PLR2004 - there is nothing between
        return []
    found: list[LossRise] = []
    for radius in RADII:
        angles = (2 * math.pi * number / NUM_ANGLES for number in range(NUM_ANGLES))
        around = [_interpolate(losses, radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
        known = [value for value in around if value is not None]
        if centre is None or len(known) < NUM_ANGLES:
            found.append({"radius": radius, "mean_rise": None, "largest_rise": None})
        else:
            mean = math.fsum(known) / NUM_ANGLES
            found.append({"radius": radius, "mean_rise": mean - centre, "largest_rise": max(known) - centre})
    return found


def _interpolate(rows: Rows, x: float, y: float) -> float | None:
    """Returns the value at (x, y), where the grid goes from -1 to 1 both ways."""
    row, down = _locate(y, len(rows))
    column, right = _locate(x, len(rows[0]))
    weights = ((row, column, (1 - down) * (1 - right)), (row, column + 1, (1 - down) * right),
               (row + 1, column, down * (1 - right)), (row + 1, column + 1, down * right))  # fmt: skip
    total = 0.0
    for i, j, weight in weights:
        if weight:
            value = rows[i][j]
            if value is None:
                return None
            total += weight * value
    return total


def _locate(position: float, size: int) -> tuple[int, float]:
    """Returns the grid point before a position in [-1, 1], and the share of the way to the next."""
    place = (min(max(position, -1.0), 1.0) + 1) / 2 * (size - 1)
    before = min(int(place), size - 2)
    return before, place - before

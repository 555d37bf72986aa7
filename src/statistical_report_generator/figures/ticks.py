"""Which places on a logarithmic axis have room for a label."""

from collections.abc import Sequence
from typing import Final

NUM_TICKS: Final = 9
LEAST_RATIO: Final = 1.05  # from one label to the next


def space_out(places: Sequence[float], num_ticks: int = NUM_TICKS) -> list[float]:
    """Returns of places in order those whose labels have room: each far enough from the one before.

    Args:
        places: Positive, ascending or descending.
        num_ticks: For how many labels the axis has room.

    Examples:
        >>> space_out([100, 80, 64, 63.9, 51.2])
        [100, 80, 64, 51.2]
    """
    if not places:
        return []
    span = max(places[0] / places[-1], places[-1] / places[0])
    least = max(LEAST_RATIO, span ** (1 / num_ticks))
    chosen = [places[0]]
    for place in places[1:]:
        if max(chosen[-1] / place, place / chosen[-1]) >= least:
            chosen.append(place)
    return chosen

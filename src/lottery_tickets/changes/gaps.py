"""Places in ascending order as bytes: the gaps between them, seven bits a byte, in most cases one byte a place."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 7  # of a gap in each byte; the eighth says that more follow
MORE: Final = 1 << BITS
MOST_BYTES: Final = 9  # 63 bits


def pack_places(places: NDArray[np.int64], before: int = -1) -> NDArray[np.uint8]:
    """Returns places as bytes: of each how many it leaves out since the one before, the lowest seven bits first.

    Args:
        places: From 0, ascending, none twice.
        before: The last place that is packed already; bytes of several calls are joined.

    Examples:
        >>> pack_places(np.array([0, 1, 130, 500])).tolist()
        [0, 0, 128, 1, 241, 2]
    """
    gaps = np.diff(places, prepend=before) - 1
    lengths = np.ones(len(gaps), np.int64)
    for number in range(1, MOST_BYTES):
        lengths += gaps >> (BITS * number) > 0
    stops = np.cumsum(lengths)
    packed = np.empty(stops[-1] if len(stops) else 0, np.uint8)
    for number in range(int(lengths.max(initial=0))):
        there = lengths > number
        more = MORE * (lengths[there] > number + 1)
        packed[(stops - lengths)[there] + number] = gaps[there] >> (BITS * number) & (MORE - 1) | more
    return packed


def unpack_places(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns the places that `pack_places` packed.

    Args:
        packed: The bytes.

    Raises:
        ValueError: When they end within a place, or a gap is longer than any.
    """
    stops = (packed < MORE).nonzero()[0] + 1
    starts = np.concatenate([[0], stops[:-1]]) if len(stops) else stops
    if len(packed) and (not len(stops) or stops[-1] != len(packed) or (stops - starts).max() > MOST_BYTES):
        raise ValueError("places must be whole numbers of seven bits a byte, but are cut short; was the file altered?")
    if not len(packed):
        return np.empty(0, np.int64)
    number = np.arange(len(packed)) - np.repeat(starts, stops - starts)
    parts = (packed.astype(np.int64) & (MORE - 1)) << (BITS * number)
    places: NDArray[np.int64] = np.cumsum(np.add.reduceat(parts, starts) + 1) - 1
    return places

"""Which of the elements that equal the threshold are kept: the first of all, wherever they lie."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lottery_tickets._core.selection.patterns import Chunk
from lottery_tickets._core.sharding.pieces import Piece
from lottery_tickets._core.sharding.together import Together
from lottery_tickets._core.thresholds import Bracket, Counters, find_kth_largest
from lottery_tickets._core.weights import Weights

NUM_BINS: Final = 1 << 12
Positions = Iterator[NDArray[np.int64]]


def share_ties(
    weights: Weights,
    chunks: Sequence[Chunk],
    num_equal: Sequence[int],
    num_kept: int,
    find_equal: Callable[[Chunk], NDArray[np.int64]],
) -> dict[Chunk, int]:
    """Returns how many elements each block keeps of those that equal the threshold: always its first.

    Those of the first weight are kept first, in C order of the whole weight. Where a weight that is shared out over
    processes keeps a part of them, the place in the whole up to which they are kept is found by counting.

    Args:
        weights: All.
        chunks: The blocks of what lies here, in order.
        num_equal: How many such elements each block has.
        num_kept: How many are kept over all processes.
        find_equal: Returns where they stand in a block, in C order of what lies here of the weight.
    """
    quotas: dict[Chunk, int] = {}
    blocks: dict[str, dict[Chunk, int]] = {name: {} for name in weights}
    for chunk, number in zip(chunks, num_equal, strict=True):
        blocks[chunk.name][chunk] = number
    totals = weights.count({name: sum(counts.values()) for name, counts in blocks.items()})
    rest = num_kept
    for name, total in totals.items():
        taken = min(total, rest)
        rest -= taken
        here = sum(blocks[name].values())
        piece = weights[name].piece
        if 0 < taken < total and piece is not None:
            taken = _count_first(weights.together, piece, taken, partial(map, find_equal, blocks[name]))
        elif taken == total:
            taken = here
        for chunk, number in blocks[name].items():
            quotas[chunk] = min(number, taken)
            taken -= quotas[chunk]
    return quotas


def _count_first(together: Together, piece: Piece, num_first: int, list_places: Callable[[], Positions]) -> int:
    """Returns how many places in a piece are among the first so many of the whole."""
    last = piece.whole.numel() - 1

    def count_here(bracket: Bracket, *, all_copies: bool = False) -> Counters:
        counts = np.zeros(1 + bracket.num_bins, np.int64)
        if piece.is_counted or all_copies:
            for places in list_places():
                from_end = last - piece.locate(places)
                counts[0] += np.count_nonzero(from_end > bracket.hi)
                inside = from_end[(from_end >= bracket.lo) & (from_end <= bracket.hi)]
                counts[1:] += np.bincount((inside - bracket.lo) >> bracket.shift, minlength=bracket.num_bins)
        return counts

    def count(bracket: Bracket) -> tuple[int, Counters]:
        counts = together.sum(1 + bracket.num_bins, lambda: count_here(bracket))
        return int(counts[0]), counts[1:]

    threshold = find_kth_largest(count, num_first, least=0, greatest=last, num_bins=NUM_BINS)
    return int(count_here(Bracket(threshold.value, threshold.value), all_copies=True).sum())

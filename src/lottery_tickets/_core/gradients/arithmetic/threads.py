"""Pieces of a loop in as many threads as pay for it: numba's loops let go of the interpreter's lock meanwhile."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

# Multiplications, below which a thread costs more than it saves: it has to start, and torch's own second thread still
# waits in a loop where it would run.
LEAST_A_THREAD: Final = 2**25


def count_threads(num_multiplications: int) -> int:
    """Returns how many threads so much work is worth, of those that torch may use."""
    return max(1, min(torch.get_num_threads(), num_multiplications // LEAST_A_THREAD))


def run_pieces(function: Callable[[int], object], starts: Iterable[int], num_threads: int) -> None:
    """Calls a function with the start of each piece, in so many threads."""
    if num_threads == 1:
        for start in starts:
            function(start)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(function, starts))

"""How far weights are from where they started: how many have moved at all, and how far all of them have."""

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from lottery_tickets._core.patterns import slice_flat

WEIGHTS_PER_CHUNK: Final = 1 << 22


@final
@dataclass(frozen=True)
class Movement:
    """How one tensor has moved.

    Attributes:
        num_moved: How many of its elements have another value than at the start.
        squared_distance: Sum of the squares of what they moved by.
        squared_start: Sum of the squares they started with.
    """

    num_moved: int
    squared_distance: float
    squared_start: float


def measure_movement(now: Tensor, start: Tensor) -> Movement:
    """Returns how a tensor has moved; works where it lies, in chunks, in float32 or better, with sums in float64.

    Args:
        now: On any device.
        start: Of the same shape, on the CPU.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for first in range(0, now.numel(), WEIGHTS_PER_CHUNK):
        last = min(first + WEIGHTS_PER_CHUNK, now.numel())
        here, there = (slice_flat(tensor.detach(), first, last) for tensor in (now, start))
        there = there.to(here.device)
        wide = torch.promote_types(here.dtype, torch.float32)
        moved = torch.count_nonzero(here != there)
        there = there.to(wide)
        by = here.to(wide) - there
        sums += torch.stack([moved.double(), *(part.square().sum(dtype=torch.float64) for part in (by, there))]).cpu()
    num_moved, distance, size = sums.tolist()
    return Movement(int(num_moved), distance, size)

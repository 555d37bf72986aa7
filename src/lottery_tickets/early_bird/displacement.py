"""How far weights are from where they started: how many have moved at all, and how far all of them have."""

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from lottery_tickets._core.selection.patterns import slice_flat

WEIGHTS_PER_CHUNK: Final = 1 << 18  # stays in a core's cache
WEIGHTS_PER_DEVICE_CHUNK: Final = 1 << 24


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
    """Returns how a tensor has moved; works where it lies, in chunks, in float32 or better; chunks add up in float64.

    Args:
        now: On any device.
        start: Of the same shape, on the CPU.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=now.device)
    wide = torch.float64 if now.dtype == torch.float64 else torch.float32
    step = WEIGHTS_PER_CHUNK if now.device.type == "cpu" else WEIGHTS_PER_DEVICE_CHUNK
    for first in range(0, now.numel(), step):
        last = min(first + step, now.numel())
        there = slice_flat(start.detach(), first, last).to(now.device).to(wide)
        by = slice_flat(now.detach(), first, last).to(wide) - there  # 0 only where equal, in a float this wide
        sums += torch.stack([torch.count_nonzero(by).double(), by.dot(by).double(), there.dot(there).double()])
    num_moved, distance, size = sums.tolist()
    return Movement(int(num_moved), distance, size)

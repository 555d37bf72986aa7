"""How far weights are from where they started: how many have another value, and how far all of them have gone."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final, final

import torch

from lottery_tickets._core.weights import Weight, Weights

WEIGHTS_PER_CHUNK: Final = 1 << 18  # stays in a core's cache
WEIGHTS_PER_DEVICE_CHUNK: Final = 1 << 24


@final
@dataclass(frozen=True)
class Displacement:
    """How far one weight is from where it started.

    Attributes:
        num_moved: How many of its elements have another value than at the start.
        squared_distance: Sum of the squares of what they moved by.
        squared_start: Sum of the squares they started with.
    """

    num_moved: int
    squared_distance: float
    squared_start: float


def measure_displacement(now: Weight, start: Weight) -> Displacement:
    """Returns how far a weight is from its start, found where it lies: in chunks, in float32 or better.

    Args:
        now: On any device.
        start: Of the same shape, on the CPU.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=now.device)  # chunks add up in float64
    wide = torch.float64 if now.dtype == torch.float64 else torch.float32
    for block in now.cut(WEIGHTS_PER_CHUNK if now.device.type == "cpu" else WEIGHTS_PER_DEVICE_CHUNK):
        there = start.read(*block).to(now.device).to(wide)
        by = now.read(*block).to(wide) - there  # 0 only where equal, in a float this wide
        sums += torch.stack([torch.count_nonzero(by).double(), by.dot(by).double(), there.dot(there).double()])
    num_moved, distance, size = sums.tolist()
    return Displacement(int(num_moved), distance, size)


def sum_displacements(weights: Weights, here: Mapping[str, Displacement]) -> dict[str, Displacement]:
    """Returns how far weights are from their starts over all processes that share them.

    Args:
        weights: All.
        here: For each name how far what lies here is from its start.
    """
    counted = {name: moved for name, moved in here.items() if weights[name].is_counted}
    parts = weights.together.gather(lambda: {name: astuple(moved) for name, moved in counted.items()})
    return {
        name: Displacement(*(sum(figures) for figures in zip(*(p[name] for p in parts if name in p), strict=True)))
        for name in here
    }

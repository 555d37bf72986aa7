"""Fingerprints of tensors, the same however these are shared out: sums over elements, each mixed with its place.

They find what was altered, cut short or stored at another moment; they are no defence against a forger.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.weights import INTEGERS_BY_BYTES, TensorWeight, Weights

ELEMENTS_PER_BLOCK: Final = 1 << 20
# Those of SplitMix64 (Steele et al., OOPSLA 2014).
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))


def compute_fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns a number for each tensor, made of its bits and their places, the same however it is shared out.

    Args:
        tensors: By name, of any dtypes; where one is a DTensor, all processes call this.

    Examples:
        >>> compute_fingerprints({"a": torch.zeros(2)}) == compute_fingerprints({"a": torch.tensor([0.0, 1.0])})
        False
    """
    weights = Weights.from_tensors(tensors)
    with np.errstate(over="ignore"):
        here = {name: _sum_up(weight) for name, weight in weights.items() if isinstance(weight, TensorWeight)}
    parts = weights.together.gather(lambda: {name: here[name] for name in weights if weights[name].is_counted})
    return {name: sum(part.get(name, 0) for part in parts) % 2**64 for name in weights}


def _sum_up(weight: TensorWeight) -> int:
    total = np.uint64(0)
    for start, stop in weight.cut(ELEMENTS_PER_BLOCK):
        places = np.arange(start, stop)
        if weight.piece is not None:
            places = weight.piece.locate(places)
        total += (_mix(places.astype(np.uint64)) ^ _see_words(weight.read(start, stop))).view(np.uint64).sum()
    return int(total)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (values + np.uint64(1)) * GOLDEN
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        mixed = (mixed ^ (mixed >> shift)) * multiplier
    return mixed ^ (mixed >> SHIFTS[-1])


def _see_words(values: Tensor) -> NDArray[np.uint64]:
    """Returns the bits of each element, mixed, so that a change of one bit is not made good by one elsewhere."""
    words = values.cpu().contiguous().view(INTEGERS_BY_BYTES[values.element_size()])
    return _mix(words.to(torch.int64).numpy().view(np.uint64))

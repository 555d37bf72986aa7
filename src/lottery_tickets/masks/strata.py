"""Two masks beside the weights that they were made of: counts by stratum, that is layer, exponent and value."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.weights import READERS, Weight, Weights

NUM_CODES: Final = 1 << 15  # magnitudes of bfloat16: 8 bits of exponent, 7 of mantissa
MANTISSA_BITS: Final = 7  # of a code; the others are its exponent
EXPONENT_BIAS: Final = 127
NUM_BLOCKS: Final = 8  # of a dimension; few and large, so that neighbours that go together share one
WEIGHTS_PER_BLOCK: Final = 1 << 20  # a multiple of 8

Counts = NDArray[np.int64]


@final
@dataclass(frozen=True)
class LayerCounts:
    """How many weights of a layer each of two masks keeps, by the weights' codes and where they stand.

    Attributes:
        codes: Those that occur, in ascending order: the first 16 bits of the magnitude as a float32.
        by_block: For each dimension that is cut into blocks, by its size (by 0 where none is): counts by block, code,
            and first bit plus twice the second bit.
    """

    codes: NDArray[np.int64]
    by_block: tuple[tuple[int, Counts], ...]

    @property
    def by_code(self) -> Counts:
        """Counts by code and bits."""
        total: Counts = self.by_block[0][1].sum(axis=0)
        return total


def find_codes(values: Tensor) -> NDArray[np.int16]:
    """Returns of each number its magnitude's first 16 bits as a float32: exponent and seven bits of mantissa.

    What bfloat16 holds is told apart by them wholly.
    """
    words = values.to(torch.float32).view(torch.int32)
    codes: NDArray[np.int16] = ((words >> 16) & (NUM_CODES - 1)).to(torch.int16).cpu().numpy()
    return codes


def count_strata(weights: Weights, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, LayerCounts]:
    """Returns the counts of each layer, read block by block.

    Args:
        weights: That the masks were made of.
        first: Packed bits of them.
        second: Likewise.
    """

    def count(weight: Weight) -> LayerCounts:
        return _count_layer(weight, first[weight.name].numpy(), second[weight.name].numpy())

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(weights, pool.map(count, weights.values()), strict=True))


def _count_layer(weight: Weight, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> LayerCounts:
    from lottery_tickets._core.kernels.counting_cpu import count_pairs  # noqa: PLC0415 - numba takes half a second

    cuts = [
        (size, weight.shape[dim + 1 :].numel(), np.zeros((NUM_BLOCKS, NUM_CODES, 4), np.int64))
        for dim, size in enumerate(weight.shape)
        if size >= NUM_BLOCKS
    ] or [(0, max(weight.size, 1), np.zeros((1, NUM_CODES, 4), np.int64))]
    occurs = np.zeros(NUM_CODES, np.bool_)  # few codes do: of the counters of all others no memory is ever touched
    for start, stop in weight.cut(WEIGHTS_PER_BLOCK):
        codes = find_codes(weight.read(start, stop))
        occurs[codes] = True
        bits = slice(start // 8, num_bytes(stop))
        for size, stride, counts in cuts:
            count_pairs(codes, first[bits], second[bits], start, stride, max(size, 1), counts)
    occurring = occurs.nonzero()[0]
    return LayerCounts(occurring, tuple((size, counts[:, occurring]) for size, _, counts in cuts))

"""The numba loop that lays two masks over the weights that they were made of: counts by block and by code."""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def count_pairs(  # noqa: PLR0917 - numba takes no keywords
    codes: NDArray[np.int16],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    start: int,
    stride: int,
    size: int,
    counts: NDArray[np.int64],
) -> None:
    """Adds, for each element of a chunk, one to the counter of its block, its code and its two bits.

    Args:
        codes: Of the elements, from 0; n of them.
        first: ceil(n / 8) bytes, little bit order.
        second: As `first`.
        start: Of the chunk in its weight, in C order.
        stride: Elements of the weight from one index of a dimension to the next.
        size: Of that dimension.
        counts: By block of the dimension, code, and first bit plus twice the second bit; the blocks are neighbours.
    """
    num_blocks = counts.shape[0]
    place = 0
    while place < codes.size:
        index = (start + place) // stride % size
        block = index * num_blocks // size
        after = -(-(block + 1) * size // num_blocks)  # the first index of the next block
        end = min(codes.size, place + (after - index) * stride - (start + place) % stride)
        for i in range(place, end):
            bits = (first[i >> 3] >> (i & 7)) & 1 | ((second[i >> 3] >> (i & 7)) & 1) << 1
            counts[block, codes[i], bits] += 1
        place = end

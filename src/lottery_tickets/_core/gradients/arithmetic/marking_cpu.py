"""The numba loop that adds up numbers and their squares, reading them once."""

import numba
from numpy.typing import NDArray

from lottery_tickets._core.gradients.arithmetic.squaring_cpu import FASTMATH, prefer_wide_vectors


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def fill_marks(gradients: NDArray, marks: NDArray) -> None:  # type: ignore[type-arg]  # of any float
    """Fills `marks` with the sum of squares and the sum of each row.

    Args:
        gradients: Shape (samples, elements).
        marks: Shape (samples, 2).
    """
    prefer_wide_vectors()
    for sample in range(len(gradients)):
        row = gradients[sample]
        squares = total = row.dtype.type(0)
        for element in range(row.size):
            squares += row[element] * row[element]
            total += row[element]
        marks[sample, 0], marks[sample, 1] = squares, total

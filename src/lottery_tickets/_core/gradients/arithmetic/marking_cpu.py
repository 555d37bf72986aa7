"""The numba loops that add up numbers and their squares, reading them once, or not at all where they are products."""

import numba
import numpy as np
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


@numba.njit(inline="always")
def _multiply(one: NDArray, other: NDArray) -> float:  # type: ignore[type-arg]  # of any float
    total = 0.0
    for index in range(one.size):
        total += one[index] * other[index]
    return total


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def fill_marks_of_products(left: NDArray, right: NDArray, marks: NDArray) -> None:  # type: ignore[type-arg]  # of any float
    """Fills `marks` as `fill_marks` does, of left @ right, by what their terms have in common.

    In float64, because terms can cancel.

    Args:
        left: Shape (samples, rows, terms).
        right: Shape (samples, terms, columns).
        marks: Shape (samples, 2).
    """
    prefer_wide_vectors()
    rows, columns = np.empty((left.shape[2], left.shape[1])), np.empty((right.shape[1], right.shape[2]))
    one_a_row, one_a_column = np.ones(rows.shape[1]), np.ones(columns.shape[1])
    for sample in range(len(left)):
        rows[:], columns[:] = left[sample].T, right[sample]
        squares = total = 0.0
        for term in range(len(rows)):
            total += _multiply(rows[term], one_a_row) * _multiply(columns[term], one_a_column)
            squares += _multiply(rows[term], rows[term]) * _multiply(columns[term], columns[term])
            for other in range(term):
                squares += 2 * _multiply(rows[term], rows[other]) * _multiply(columns[term], columns[other])
        marks[sample, 0], marks[sample, 1] = max(squares, 0.0), total

"""The numba loops that correlate planes, as a depthwise convolution's weight gradients do: each plane with its own."""

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from lottery_tickets._core.gradients.arithmetic.squaring_cpu import FASTMATH, prefer_wide_vectors

LANES: Final = 16  # float32 numbers of 512 bits

Steps = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@numba.njit(inline="always")
def _copy_rows(plane: NDArray, rows: NDArray, first: tuple[int, int], step: tuple[int, int]) -> None:  # type: ignore[type-arg]  # of any float
    """Copies a plane into wider and more rows, its elements from a place on and some steps apart."""
    for y in range(len(plane)):
        source, target = plane[y], rows[first[0] + y * step[0], first[1] :]
        if step[1] == 1:  # which is done by vectors
            for x in range(source.size):
                target[x] = source[x]
        else:
            for x in range(source.size):
                target[x * step[1]] = source[x]


@numba.njit(inline="always")
def _multiply(one: NDArray, other: NDArray) -> float:  # type: ignore[type-arg]  # of any float
    total = one.dtype.type(0)
    for index in range(one.size):
        total += one[index] * other[index]
    result: float = total
    return result


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def correlate_planes(gradients: NDArray, inputs: NDArray, products: NDArray, steps: Steps) -> None:  # type: ignore[type-arg]  # of any float
    """Fills `products`: how each plane of gradients correlates with that of inputs, at each shift of a kernel.

    Rows of both lie behind one another at one pitch, zeros between them: so each shift is one dot product.

    Args:
        gradients: Of the outputs, shape (planes, height, width).
        inputs: Shape (planes, input height, input width).
        products: Shape (planes, kernel height, kernel width).
        steps: Of the convolution: its stride, the zeros before and after the inputs, and its dilation.
    """
    prefer_wide_vectors()
    stride, padding, dilation = steps
    height, (high, wide) = (gradients.shape[1] - 1) * stride[0] + 1, inputs.shape[1:]
    pitch = wide + 2 * padding[1]
    size = (height * pitch + LANES - 1) // LANES * LANES  # whole vectors
    more_rows = LANES // pitch + 1  # that the last vectors reach into
    gradient_rows = np.zeros((height + more_rows, pitch), gradients.dtype)
    input_rows = np.zeros((high + 2 * padding[0] + 1 + more_rows, pitch), gradients.dtype)
    still, shifted = gradient_rows.reshape(-1)[:size], input_rows.reshape(-1)
    for plane in range(len(products)):
        _copy_rows(gradients[plane], gradient_rows, (0, 0), stride)
        _copy_rows(inputs[plane], input_rows, padding, (1, 1))
        for y in range(products.shape[1]):
            for x in range(products.shape[2]):
                first = y * dilation[0] * pitch + x * dilation[1]
                products[plane, y, x] = _multiply(still, shifted[first : first + size])

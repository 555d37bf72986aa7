"""The numba loops that correlate planes, as a depthwise convolution's weight gradients do: each plane with its own.

Large planes one by one, small ones side by side.
"""

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from lottery_tickets._core.gradients.arithmetic.squaring_cpu import FASTMATH, prefer_wide_vectors

LANES: Final = 16  # float32 numbers of 512 bits
SIDE_BY_SIDE: Final = 128  # small planes

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


@numba.njit(inline="always")
def _lay_side_by_side(planes: NDArray, rows: NDArray, start: int, stop: int) -> None:  # type: ignore[type-arg]  # of any float
    """Copies some planes (planes, positions) into columns of `rows` (positions, columns)."""
    for plane in range(start, stop):
        source = planes[plane]
        for position in range(source.size):
            rows[position, plane - start] = source[position]


@numba.njit(inline="always")
def _find_inside(shift: int, step: int, num_outputs: int, num_inputs: int) -> tuple[int, int]:
    """Returns the first output, and that behind the last, which a shift of the kernel leads to an input."""
    return max(0, -(shift // step)), min(num_outputs, (num_inputs - 1 - shift) // step + 1)


@numba.njit(inline="always")
def _add_products(sums: NDArray, one: NDArray, other: NDArray) -> None:  # type: ignore[type-arg]  # of any float
    for column in range(sums.size):
        sums[column] += one[column] * other[column]


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def add_squares_of_planes(  # noqa: PLR0917 - as numba calls it
    gradients: NDArray,  # type: ignore[type-arg]  # of any float
    inputs: NDArray,  # type: ignore[type-arg]  # as above
    sums: NDArray,  # type: ignore[type-arg]  # as above
    held: NDArray,  # type: ignore[type-arg]  # as above
    sizes: Steps,
    steps: Steps,
    watched: int,
    start: int,
    stop: int,
) -> None:
    """Adds to the sums of some channels how planes correlate, squared, sample by sample; for small planes.

    `SIDE_BY_SIDE` of them are worked on at once, one in each column, so that no row is too short for vectors.

    Args:
        gradients: Of the outputs, shape (samples, channels, height * width).
        inputs: Shape (samples, channels, input height * input width).
        sums: Shape (channels, kernel height * kernel width).
        held: Shaped alike, filled with the correlations of one sample.
        sizes: Heights and widths: of outputs, inputs and kernel.
        steps: Of the convolution: its stride, the zeros before and after the inputs, and its dilation.
        watched: The number of that sample; -1 for none.
        start: The first channel.
        stop: That behind the last.
    """
    prefer_wide_vectors()
    (height, width), (high, wide), (kernel_height, kernel_width) = sizes
    stride, padding, dilation = steps
    gradient_rows = np.zeros((height * width, SIDE_BY_SIDE), gradients.dtype)
    input_rows = np.zeros((high * wide, SIDE_BY_SIDE), gradients.dtype)
    products = np.zeros(SIDE_BY_SIDE, gradients.dtype)
    squares = np.zeros((kernel_height * kernel_width, SIDE_BY_SIDE), gradients.dtype)
    for first in range(start, stop, SIDE_BY_SIDE):
        behind = min(first + SIDE_BY_SIDE, stop)
        squares[:] = 0
        for sample in range(len(gradients)):
            _lay_side_by_side(gradients[sample], gradient_rows, first, behind)
            _lay_side_by_side(inputs[sample], input_rows, first, behind)
            for place in range(len(squares)):
                down = place // kernel_width * dilation[0] - padding[0]
                right = place % kernel_width * dilation[1] - padding[1]
                top, bottom = _find_inside(down, stride[0], height, high)
                left, end = _find_inside(right, stride[1], width, wide)
                products[:] = 0
                for y in range(top, bottom):
                    for x in range(left, end):
                        seen = (y * stride[0] + down) * wide + x * stride[1] + right
                        _add_products(products, gradient_rows[y * width + x], input_rows[seen])
                _add_products(squares[place], products, products)
                if sample == watched:
                    held[first:behind, place] = products[: behind - first]
        for channel in range(first, behind):
            for place in range(len(squares)):
                sums[channel, place] += squares[place, channel - first]

"""Weight gradients of depthwise convolutions: each plane of output gradients correlated with its own plane of inputs.

torch has a fast kernel of such backward passes for kernels of 3 x 3 alone; for 7 x 7 it takes 14 times as long as
these loops (docs/diary.md).
"""

import math
from dataclasses import dataclass
from operator import ge
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.gradients.arithmetic.correlating_cpu import (
    SIDE_BY_SIDE,
    add_squares_of_planes,
    correlate_planes,
)
from lottery_tickets._core.gradients.arithmetic.threads import count_threads, run_pieces

NUM_SPATIAL: Final = (1, 2)  # dimensions that the loops know
FAST_KERNEL: Final = (3, 3)  # of torch, not dilated, on inputs that are no smaller,
MIN_POSITIONS: Final = 196  # and strided, or over fewer outputs
MOST_SIDE_BY_SIDE: Final = 80  # outputs and inputs of a plane
DTYPES: Final = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Window:
    """How a convolution's kernel goes over its inputs; one number a spatial dimension.

    Attributes:
        kernel_size: Of the weight.
        stride: Between two outputs.
        padding: Zeros before and after the inputs.
        dilation: Between two elements of the kernel.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def has_planes(outputs: Tensor, num_spatial: int) -> bool:
    """Returns whether the loops know a depthwise convolution of so many spatial dimensions, by its outputs."""
    is_here = type(outputs) is Tensor and outputs.device.type == "cpu"
    return is_here and outputs.dtype in DTYPES and num_spatial in NUM_SPATIAL


def prefers_planes(gradients: Tensor, inputs: Tensor, window: Window) -> bool:
    """Returns whether a depthwise convolution's gradients are better computed here than by torch.

    Args:
        gradients: Of its outputs, shape (..., *output size).
        inputs: Shape (..., *input size).
        window: Of its kernel.
    """
    num_spatial = len(window.kernel_size)
    if not has_planes(gradients, num_spatial):
        return False
    num_positions = math.prod(gradients.shape[-num_spatial:])
    is_padding = not all(map(ge, inputs.shape[-num_spatial:], window.kernel_size))  # mostly
    is_fast = window.kernel_size == FAST_KERNEL and set(window.dilation) == {1} and not is_padding
    return not is_fast or (set(window.stride) == {1} and num_positions >= MIN_POSITIONS)


def correlate(gradients: Tensor, inputs: Tensor, window: Window) -> Tensor:
    """Returns the gradients of a depthwise convolution's kernels, one for each plane, shape (..., *kernel size).

    Args:
        gradients: Of its outputs, shape (..., *output size).
        inputs: Shape (..., *input size).
        window: Of its kernel.
    """
    num_spatial = len(window.kernel_size)
    fill = NUM_SPATIAL[-1] - num_spatial  # a line is a plane of one row

    def see_planes(tensor: Tensor) -> NDArray[np.floating]:
        planes: NDArray[np.floating] = tensor.reshape(-1, *[1] * fill, *tensor.shape[-num_spatial:]).numpy()
        return planes

    products = gradients.new_empty(*gradients.shape[:-num_spatial], *window.kernel_size)
    one, other, held = map(see_planes, (gradients.detach().contiguous(), inputs.detach().contiguous(), products))
    steps = _see_two(1, window.stride), _see_two(0, window.padding), _see_two(1, window.dilation)
    number = len(held)
    num_threads = count_threads(inputs.numel() * math.prod(window.kernel_size))
    size = math.ceil(number / num_threads)

    def correlate_some(start: int) -> None:
        some = slice(start, start + size)
        correlate_planes(one[some], other[some], held[some], steps)

    run_pieces(correlate_some, range(0, number, size), num_threads)
    return products


def prefers_side_by_side(gradients: Tensor, inputs: Tensor, window: Window) -> bool:
    """Returns whether a depthwise convolution's planes are so small that `add_squares_of_channels` is best.

    Args:
        gradients: Of its outputs, shape (..., *output size).
        inputs: Shape (..., *input size).
        window: Of its kernel.
    """
    num_spatial = len(window.kernel_size)
    num_positions = gradients.shape[-num_spatial:].numel() + inputs.shape[-num_spatial:].numel()
    return has_planes(gradients, num_spatial) and num_positions <= MOST_SIDE_BY_SIDE


def add_squares_of_channels(
    sums: Tensor, gradients: Tensor, inputs: Tensor, window: Window, watched: int | None
) -> Tensor | None:
    """Adds the squares of a depthwise convolution's gradients; returns those of one sample, where one is watched.

    Args:
        sums: Shape (channels, kernel elements), contiguous.
        gradients: Of its outputs, shape (samples, channels, *output size).
        inputs: Shape (samples, channels, *input size).
        window: Of its kernel.
        watched: The number of that sample.
    """
    steps = _see_two(1, window.stride), _see_two(0, window.padding), _see_two(1, window.dilation)
    sizes = _see_two(1, gradients.shape[2:]), _see_two(1, inputs.shape[2:]), _see_two(1, window.kernel_size)
    held = torch.empty_like(sums)
    one, other = (t.detach().to(sums.dtype).flatten(2).contiguous().numpy() for t in (gradients, inputs))
    totals, products, number = sums.numpy(), held.numpy(), -1 if watched is None else watched
    num_threads = count_threads(inputs.numel() * math.prod(window.kernel_size))
    step = math.ceil(math.ceil(len(sums) / SIDE_BY_SIDE) / num_threads) * SIDE_BY_SIDE

    def add_some(start: int) -> None:
        add_squares_of_planes(one, other, totals, products, sizes, steps, number, start, min(start + step, len(totals)))

    run_pieces(add_some, range(0, len(totals), step), num_threads)
    return None if watched is None else held


def _see_two(least: int, numbers: tuple[int, ...]) -> tuple[int, int]:
    height, width = (least, *numbers)[-NUM_SPATIAL[-1] :]
    return height, width

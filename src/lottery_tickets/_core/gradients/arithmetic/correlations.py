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

from lottery_tickets._core.gradients.arithmetic.correlating_cpu import correlate_planes
from lottery_tickets._core.gradients.arithmetic.threads import count_threads, run_pieces

NUM_SPATIAL: Final = (1, 2)  # dimensions that the loops know
FAST_KERNEL: Final = (3, 3)  # of torch, not dilated, on inputs that are no smaller,
MIN_POSITIONS: Final = 196  # and strided, or over fewer outputs
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


def _see_two(least: int, numbers: tuple[int, ...]) -> tuple[int, int]:
    height, width = (least, *numbers)[-NUM_SPATIAL[-1] :]
    return height, width

"""What a mask is made of, checked: shapes, packed bits, tensors of 0 and 1."""

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from lottery_tickets._core.bits import num_bytes

MOST_WEIGHTS: Final = 2**63 - 1  # torch counts in 64 bits


def checked_shape(name: str, shape: Sequence[int]) -> torch.Size:
    """Returns a shape that a tensor can have: torch.Size itself takes negative sizes, and products beyond 64 bits."""
    sizes: list[Any] = list(shape)  # of whatever a file says
    is_possible = all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in sizes)
    if not is_possible or max([math.prod(sizes), *sizes]) > MOST_WEIGHTS:
        message = (
            f"the shape of {name!r} must be of integers from 0 on, for at most {MOST_WEIGHTS} weights, but got {sizes}"
        )
        raise ValueError(message)
    return torch.Size(sizes)


def checked_bits(name: str, bits: Tensor, shape: torch.Size) -> Tensor:
    """Returns packed bits, on the CPU, that have the size and the padding of a shape."""
    size = shape.numel()
    if bits.dtype != torch.uint8 or bits.shape != (num_bytes(size),):
        message = (
            f"the bits of {name!r} must be {num_bytes(size)} bytes of uint8 for shape {tuple(shape)}, "
            f"but got {bits.dtype} of shape {tuple(bits.shape)}"
        )
        raise ValueError(message)
    if size % 8 and int(bits[-1]) >> size % 8:
        message = (
            f"the padding bits of {name!r} must be zero, but the last byte is {int(bits[-1]):#04x}; was it altered?"
        )
        raise ValueError(message)
    return bits.cpu()


def checked_tensor(name: str, tensor: object) -> Tensor:
    """Returns what a mapping has under a name; it must be a tensor."""
    if not isinstance(tensor, Tensor):
        message = f"a mask must map names to tensors, but {name!r} is a {type(tensor).__name__}"
        raise TypeError(message)
    return tensor


def checked_binary(name: str, tensor: Tensor) -> Tensor:
    """Returns a tensor of 0 and 1, and of nothing else, as booleans."""
    if tensor.dtype != torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
        raise ValueError(
            f"mask for {name!r} must hold only 0 and 1, but holds other values; compare with a threshold first"
        )
    return tensor != 0


def invert(bits: Tensor, size: int) -> Tensor:
    """Returns packed bits with each of so many turned over, and zeros behind them."""
    inverted = ~bits
    if size % 8:
        inverted[-1] &= (1 << size % 8) - 1
    return inverted

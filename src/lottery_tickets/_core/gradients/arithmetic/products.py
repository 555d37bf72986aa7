"""Products of one pair of matrices a sample, by whichever of torch's libraries is fastest for their size."""

import functools
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

# Measured on a CPU with AVX-512 that is not Intel's, see docs/decisions/0014: a call of oneDNN takes 13 microseconds
# before it starts, and then runs up to 3 times as fast as bmm, but not for few columns, nor soon where the left matrix
# has to be turned first.
MIN_MULTIPLICATIONS: Final = 2**20  # a sample and thread
MIN_COLUMNS: Final = 32
TURNING: Final = 2  # times as many multiplications, and
MIN_COLUMNS_WHEN_TURNING: Final = 128


def prefers_single_samples(left: Tensor, rows: int, columns: int) -> bool:
    """Returns whether the products of some rows of `left` (samples, rows, inner) are better computed one by one."""
    inner, least = left.shape[2], MIN_MULTIPLICATIONS * torch.get_num_threads()
    if left.device.type != "cpu" or left.dtype != torch.float32 or not bool(torch.backends.mkldnn.enabled):
        return False
    if left.stride(2) != 1 and inner > 1:
        fits = columns >= MIN_COLUMNS_WHEN_TURNING and rows * inner * columns >= TURNING * least
    else:
        fits = (columns >= MIN_COLUMNS or _is_narrow(rows, inner, columns)) and rows * inner * columns >= least
    return fits and _find_onednn() is not None


def multiply(left: Tensor, right: Tensor, step: int) -> Iterator[Tensor]:
    """Yields (samples, rows, inner) @ (samples, inner, columns), of `step` samples at a time."""
    linear, (_, rows, inner), columns = _find_onednn(), left.shape, right.shape[2]
    if linear is None or step != 1 or not prefers_single_samples(left, rows, columns):
        yield from map(torch.bmm, left.split(step), right.split(step))
    elif _is_narrow(rows, inner, columns):
        for inputs, weight in zip(right.mT.split(1), _fill(left).unbind(), strict=True):
            yield linear(inputs, weight, None, "none", [], "").mT
    else:
        for inputs, weight in zip(left.split(1), _fill(right).mT.unbind(), strict=True):
            yield linear(inputs, weight, None, "none", [], "")


def _fill(weights: Tensor) -> Tensor:
    """Returns matrices that fill their memory: with gaps in it oneDNN takes 2,000 times as long."""
    return weights if weights[0].is_contiguous() or weights[0].mT.is_contiguous() else weights.contiguous()


def _is_narrow(rows: int, inner: int, columns: int) -> bool:
    """Returns whether a product of many rows and few columns is better computed transposed."""
    return columns < MIN_COLUMNS <= rows <= inner


@functools.cache
def _find_onednn() -> Callable[..., Tensor] | None:
    """Returns oneDNN's linear layer, inputs times weights transposed; None where this torch is built without.

    It is no public function, but the one that code of torch.compile calls for a linear layer on a CPU.
    """
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    # Its overload, because to choose one takes longer than the smaller products.
    return found.default if found is not None and torch.backends.mkldnn.is_available() else None

"""Products of one pair of matrices a sample, by whichever of torch's libraries is fastest for their size."""

import functools
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

# Measured on a CPU with AVX-512 that is not Intel's, see docs/decisions/0014: a call of oneDNN takes 13 microseconds
# before it starts, and then runs up to 3 times as fast as bmm, but not for few columns.
MIN_MULTIPLICATIONS: Final = 2**21  # a sample and thread
MIN_COLUMNS: Final = 32


def prefers_single_samples(tensor: Tensor, rows: int, inner: int, columns: int) -> bool:
    """Returns whether products (rows, inner) @ (inner, columns) of such tensors are better computed one by one."""
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32 or columns < MIN_COLUMNS:
        return False
    if rows * inner * columns < MIN_MULTIPLICATIONS * torch.get_num_threads():
        return False
    return bool(torch.backends.mkldnn.enabled) and _find_onednn() is not None


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Returns (samples, rows, inner) @ (samples, inner, columns)."""
    linear, (num_samples, rows, inner) = _find_onednn(), left.shape
    if linear is None or num_samples != 1 or not prefers_single_samples(left, rows, inner, right.shape[2]):
        return torch.bmm(left, right)
    return linear(left[0], right[0].mT, None, "none", [], "").unsqueeze(0)


@functools.cache
def _find_onednn() -> Callable[..., Tensor] | None:
    """Returns oneDNN's linear layer, inputs times weights transposed; None where this torch is built without.

    It is no public function, but the one that code of torch.compile calls for a linear layer on a CPU.
    """
    found: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return found if torch.backends.mkldnn.is_available() else None

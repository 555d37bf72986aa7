"""Helpers that stand on their own: quantiles, seeds, and checks of arguments for programs that use the library."""

import math
import os
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.checks import check_count, check_share
from lottery_tickets._core.determinism import make_generator, seed_everything
from lottery_tickets._core.devices import check_device
from lottery_tickets._core.loggers import Log, Logger
from lottery_tickets._core.notebooks import show_only
from lottery_tickets._core.selection.patterns import QUARTER_FLOATS, WORDS
from lottery_tickets._core.thresholds import Bracket, find_kth_largest
from lottery_tickets._core.weights import slice_flat

__all__ = [
    "Log",
    "Logger",
    "check_count",
    "check_device",
    "check_share",
    "compute_histogram_quantile",
    "ensure_deterministic_pruning",
    "make_generator",
]
__dir__ = show_only(__all__)

VALUES_PER_CHUNK: Final = 1 << 15  # torch wakes its threads for more, which costs more than the work
VALUES_PER_DEVICE_CHUNK: Final = 1 << 20
INTEGERS: Final = {
    torch.bool: torch.int16,
    torch.uint8: torch.int16,  # keys are signed
    torch.int8: torch.int8,
    torch.int16: torch.int16,
    torch.int32: torch.int32,
    torch.int64: torch.int64,
}


def ensure_deterministic_pruning(seed: int = 42) -> None:
    """Makes what follows in this process the same on every run on this machine; returns nothing.

    Seeds the global generators of torch (all devices), numpy and Python, has torch refuse operations without a
    deterministic form, and fixes the workspace of cuBLAS, which must be set before CUDA is first used. Our own
    functions take their seeds as arguments and need none of this; it is for training loops, data loaders and models
    around them.

    Args:
        seed: Of all generators, in [0, 2^63).

    Raises:
        ValueError: When the seed is out of range.

    Examples:
        >>> ensure_deterministic_pruning(7)
        >>> first = torch.rand(3)
        >>> ensure_deterministic_pruning(7)
        >>> torch.equal(first, torch.rand(3))
        True
        >>> torch.use_deterministic_algorithms(False)
    """
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed must lie in [0, 2^63), but got {seed}; 42 is the default")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False
    seed_everything(seed)


def compute_histogram_quantile(tensor: Tensor, q: float, bins: int = 1000) -> float:
    """Returns the q-quantile of a tensor's values: the exact order statistic, as `numpy.quantile(method="lower")`.

    A histogram of the values' bit patterns is refined, one pass over the tensor a time, until a bin is one value. So
    the answer does not depend on `bins`, an outlier does no harm, and any size and dtype will do (`torch.quantile`
    fails above 2^24 elements and on bfloat16). Memory: `bins` counters and a chunk of 32,768 values (on the CPU).

    Args:
        tensor: Any shape, strides and device; float (8, 16, 32 or 64 bits), integer or boolean; without NaN.
        q: From 0 (the minimum) to 1 (the maximum).
        bins: The number of counters, 2 or more. Fewer need more passes: float32 takes four with 1,000.

    Returns:
        The value at position floor(q * (n - 1)) of the n values in ascending order.

    Raises:
        TypeError: When the dtype has no order here, such as complex.
        ValueError: When the tensor is empty or holds NaN, `q` is out of [0, 1] or `bins` is less than 2.

    Examples:
        >>> compute_histogram_quantile(torch.tensor([3.0, -1.0, 2.0, 1e30]), 0.5)
        2.0
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must be from 0 to 1, got {q}")
    if bins < 2:  # noqa: PLR2004 - one bin refines nothing
        raise ValueError(f"bins must be 2 or more, got {bins}")
    if tensor.numel() == 0:
        raise ValueError(f"a quantile needs values, got an empty tensor of shape {tuple(tensor.shape)}")
    keys = _Keys(tensor.detach())
    limits = torch.iinfo(keys.dtype)
    k = tensor.numel() - math.floor(q * (tensor.numel() - 1))
    # Non-negative keys first: a bracket over all keys would be too wide for 64-bit arithmetic.
    found = find_kth_largest(keys.count, k, least=limits.min, greatest=limits.max, num_bins=bins, guess=(0, limits.max))
    return keys.to_value(found.value)


class _Keys:
    """The values of a tensor as signed integers that sort like them."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.float_dtype = torch.float16 if tensor.dtype in QUARTER_FLOATS else tensor.dtype
        self.is_float = self.float_dtype in WORDS
        if not self.is_float and tensor.dtype not in INTEGERS:
            raise TypeError(f"a quantile needs a float, integer or boolean tensor, got {tensor.dtype}")
        self.dtype = WORDS[self.float_dtype] if self.is_float else INTEGERS[tensor.dtype]

    def count(self, bracket: Bracket) -> tuple[int, NDArray[np.int64]]:
        """Returns how many keys exceed the bracket, and how many lie in each of its bins."""
        num_above = 0
        counts = np.zeros(bracket.num_bins, dtype=np.int64)
        step = VALUES_PER_CHUNK if self.tensor.device.type == "cpu" else VALUES_PER_DEVICE_CHUNK
        for start in range(0, self.tensor.numel(), step):
            keys = self._read(start, min(start + step, self.tensor.numel()))
            num_above += int((keys > bracket.hi).sum())
            inside = keys[(keys >= bracket.lo) & (keys <= bracket.hi)].to(torch.int64)
            here = torch.bincount((inside - bracket.lo) >> bracket.shift).cpu().numpy()
            counts[: len(here)] += here
        return num_above, counts

    def to_value(self, key: int) -> float:
        """Returns the value that a key stands for; 0.0 for -0.0."""
        if not self.is_float:
            return float(key)
        word = _flip_negative(torch.tensor(key, dtype=self.dtype))
        return float(word.view(self.float_dtype)) + 0.0

    def _read(self, start: int, stop: int) -> Tensor:
        piece = slice_flat(self.tensor, start, stop)
        if not self.is_float:
            return piece.to(self.dtype)
        piece = piece.to(self.float_dtype)
        if bool(piece.isnan().any()):
            raise ValueError(
                "a quantile needs values that have an order, but the tensor holds NaN; find where it diverged"
            )
        return _flip_negative(piece.view(self.dtype))


def _flip_negative(words: Tensor) -> Tensor:
    """Maps floats' words to integers that sort like the floats, and back: below zero the order turns."""
    info = torch.iinfo(words.dtype)
    return words ^ ((words >> (info.bits - 1)) & info.max)

"""Products of one pair of matrices a sample, by whichever of torch's libraries is fastest for their size."""

import functools
from collections.abc import Callable, Iterator
from typing import Final

import torch
from llvmlite import binding
from torch import Tensor

# Measured on a CPU with AVX-512 that is not Intel's, see docs/decisions/0014: a call of oneDNN takes 13 microseconds
# before it starts, and then runs up to 3 times as fast as bmm, but not for few columns, nor soon where the left matrix
# has to be turned first.
MIN_MULTIPLICATIONS: Final = 2**20  # a sample and thread
MIN_COLUMNS: Final = 32
TURNING: Final = 2  # times as many multiplications, and
MIN_COLUMNS_WHEN_TURNING: Final = 128
# Measured on one of Intel's, see there: with Intel's own library a product a sample is best where it is so large that
# those of several samples push each other out of the cache.
MIN_PRODUCTS_OF_INTEL: Final = 2**16
AMD: Final = ("znver", "bdver", "btver")  # as LLVM calls its processors, for which MKL has no fast loops
# Of one matrix with those of each sample: one product of all, which copies them twice, is faster than one a sample
# where so few columns leave a library's loops half empty, or a matrix of so many elements is read anew for each.
FEW_COLUMNS: Final = 16
SOME_COLUMNS: Final = 64
MANY_ELEMENTS: Final = 2**18


def prefers_single_samples(left: Tensor, rows: int, columns: int) -> bool:
    """Returns whether the products of some rows of `left` (samples, rows, inner) are better computed one by one."""
    if left.device.type != "cpu":
        return False
    if is_intel():
        return left.dtype in {torch.float32, torch.float64} and rows * columns >= MIN_PRODUCTS_OF_INTEL
    inner, least = left.shape[2], MIN_MULTIPLICATIONS * torch.get_num_threads()
    if left.dtype != torch.float32 or not bool(torch.backends.mkldnn.enabled):
        return False
    if left.stride(2) != 1 and inner > 1:
        fits = columns >= MIN_COLUMNS_WHEN_TURNING and rows * inner * columns >= TURNING * least
    else:
        fits = (columns >= MIN_COLUMNS or _is_narrow(rows, inner, columns)) and rows * inner * columns >= least
    return fits and _find_onednn() is not None


def multiply(left: Tensor, right: Tensor, step: int) -> Iterator[Tensor]:
    """Yields (samples, rows, inner) @ (samples, inner, columns), of `step` samples at a time."""
    linear, (_, rows, inner), columns = _find_onednn(), left.shape, right.shape[2]
    if step != 1 or not prefers_single_samples(left, rows, columns):
        yield from map(torch.bmm, left.split(step), right.split(step))
    elif is_intel() or linear is None:
        for one, other in zip(left.unbind(), right.unbind(), strict=True):
            yield torch.mm(one, other).unsqueeze(0)
    elif _is_narrow(rows, inner, columns):
        for inputs, weight in zip(right.mT.split(1), _fill(left).unbind(), strict=True):
            yield linear(inputs, weight, None, "none", [], "").mT
    else:
        for inputs, weight in zip(left.split(1), _fill(right).mT.unbind(), strict=True):
            yield linear(inputs, weight, None, "none", [], "")


def fill_mixed(mixed: Tensor, matrix: Tensor, samples: Tensor) -> None:
    """Fills `mixed` (samples, rows, columns) with matrix (rows, inner) @ samples (samples, inner, columns)."""
    (num_samples, inner, columns), rows = samples.shape, matrix.shape[0]
    if columns < FEW_COLUMNS or (columns < SOME_COLUMNS and matrix.numel() >= MANY_ELEMENTS):
        products = samples.mT.reshape(-1, inner) @ matrix.t()
        mixed.copy_(products.view(num_samples, columns, rows).mT)
    else:
        torch.bmm(matrix.expand(num_samples, -1, -1), samples, out=mixed)


def _fill(weights: Tensor) -> Tensor:
    """Returns matrices that fill their memory: with gaps in it oneDNN takes 2,000 times as long."""
    return weights if weights[0].is_contiguous() or weights[0].mT.is_contiguous() else weights.contiguous()


def _is_narrow(rows: int, inner: int, columns: int) -> bool:
    """Returns whether a product of many rows and few columns is better computed transposed."""
    return columns < MIN_COLUMNS <= rows <= inner


@functools.cache
def is_intel() -> bool:
    """Returns whether torch multiplies by Intel's library on a processor that it was written for."""
    return torch.backends.mkl.is_available() and not binding.get_host_cpu_name().startswith(AMD)


@functools.cache
def _find_onednn() -> Callable[..., Tensor] | None:
    """Returns oneDNN's linear layer, inputs times weights transposed; None where this torch is built without.

    It is no public function, but the one that code of torch.compile calls for a linear layer on a CPU.
    """
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    # Its overload, because to choose one takes longer than the smaller products.
    return found.default if found is not None and torch.backends.mkldnn.is_available() else None

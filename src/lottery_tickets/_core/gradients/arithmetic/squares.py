"""Squares of per-sample gradients that are products of few terms, as a convolution's of few positions are, or of many.

A matrix product of few terms spends its time on writing the gradients, and the squares on reading them again. On a CPU
these are made in registers, squared there and added: 6 times as fast at 4 positions, twice at 16 (docs/diary.md). So
are those of many terms but few rows and columns, which a matrix product is slow at: twice as fast.
"""

import math
from typing import Final, TypeGuard

import torch
from torch import Tensor
from torch.nn.functional import pad

from lottery_tickets._core.gradients.arithmetic.marking_cpu import fill_marks_of_products
from lottery_tickets._core.gradients.arithmetic.products import is_intel
from lottery_tickets._core.gradients.arithmetic.squaring_cpu import LOOPS, MANY, add_squares_of_long
from lottery_tickets._core.gradients.arithmetic.threads import count_threads, run_pieces

ROWS_TOGETHER: Final = 2**17  # elements of the sums that stay in the cache while all samples are added
ROWS_AT_ONCE: Final = 4  # of the loop over long rows
# Where the loop over long rows is faster, measured beside oneDNN and bmm, and beside Intel's library: from so many
# terms on, for gradients and right matrices of so many elements.
LONG: Final = 256
LONG_FOR_INTEL: Final = 1024
MOST_PRODUCTS: Final = 96 * 96
MOST_IN_CACHE: Final = 150_000


def has_few_terms(left: Tensor | None) -> bool:
    """Returns whether products of `left` (samples, rows, terms) with something have 2 to `MANY` terms, and lie here.

    Stand-ins without values never do, nor does None, which stands for what is no product.
    """
    return _is_here(left) and 1 < left.shape[2] <= MANY


def has_long_rows(left: Tensor | None, right: Tensor) -> bool:
    """Returns whether a loop is best for the squares of left @ right, because their terms are many and lie in rows.

    Args:
        left: Shape (samples, rows, terms); None for what is no product.
        right: Shape (samples, terms, columns).
    """
    least = LONG_FOR_INTEL if is_intel() else LONG
    if not _is_here(left) or left.shape[2] < least or left.stride(2) != 1 or right.stride(1) != 1:
        return False
    (_, rows, terms), columns = left.shape, right.shape[2]
    is_known = left.dtype in {torch.float32, torch.float64}
    return is_known and rows * columns <= MOST_PRODUCTS and columns * terms <= MOST_IN_CACHE


def _is_here(left: Tensor | None) -> TypeGuard[Tensor]:
    return type(left) is Tensor and left.device.type == "cpu"


def add_squares(sums: Tensor, left: Tensor, right: Tensor, *, is_unfilled: bool = False) -> None:
    """Adds the squares of left @ right over the samples.

    Args:
        sums: Shape (rows, columns), contiguous, float32 or float64.
        left: Shape (samples, rows, terms).
        right: Shape (samples, terms, columns).
        is_unfilled: Whether the sums are of nothing yet; then they are made zero block by block, in the cache.
    """
    rows, columns = sums.shape
    num_threads = count_threads(left.numel() * columns)
    step = max(1, min(ROWS_TOGETHER // columns, math.ceil(rows / num_threads)))
    left, right, num_terms = left.to(sums.dtype), right.to(sums.dtype), left.shape[2]
    if num_terms > MANY:
        right, add, step = right.mT, add_squares_of_long, math.ceil(step / ROWS_AT_ONCE) * ROWS_AT_ONCE
    else:
        size, add = next((size, loop) for size, loop in LOOPS.items() if num_terms <= size)
        right = pad(right, (0, 0, 0, size - num_terms)) if num_terms < size else right
    factors, terms, held = left.contiguous().numpy(), right.contiguous().numpy(), sums.numpy()

    def add_rows(start: int) -> None:
        if is_unfilled:
            held[start : start + step] = 0
        add(factors, terms, held, start, min(start + step, rows))

    run_pieces(add_rows, range(0, rows, step), num_threads)


def mark_products(left: Tensor, right: Tensor) -> Tensor:
    """Returns the marks of left @ right, see `marks`, without the products: by what their terms have in common.

    Args:
        left: Shape (samples, rows, terms).
        right: Shape (samples, terms, columns).
    """
    wide = torch.promote_types(left.dtype, torch.float32)
    factors, terms = (tensor.detach().to(wide).contiguous() for tensor in (left, right))
    marks = factors.new_empty(len(factors), 2)
    fill_marks_of_products(factors.numpy(), terms.numpy(), marks.numpy())
    return marks

"""Squares of per-sample gradients that are products of few terms, as a convolution's of few positions are.

A matrix product of few terms spends its time on writing the gradients, and the squares on reading them again. On a CPU
these are made in registers, squared there and added: 6 times as fast at 4 positions, twice at 16 (docs/diary.md).
"""

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from lottery_tickets._core.gradients.arithmetic.squaring_cpu import LOOPS, MANY
from lottery_tickets._core.gradients.arithmetic.threads import count_threads, run_pieces

ROWS_TOGETHER: Final = 2**17  # elements of the sums that stay in the cache while all samples are added


def has_few_terms(left: Tensor | None) -> bool:
    """Returns whether products of `left` (samples, rows, terms) with something have 2 to `MANY` terms, and lie here.

    Stand-ins without values never do, nor does None, which stands for what is no product.
    """
    return type(left) is Tensor and left.device.type == "cpu" and 1 < left.shape[2] <= MANY


def add_squares(sums: Tensor, left: Tensor, right: Tensor, *, is_unfilled: bool = False) -> None:
    """Adds the squares of left @ right over the samples.

    Args:
        sums: Shape (rows, columns), contiguous, float32 or float64.
        left: Shape (samples, rows, terms).
        right: Shape (samples, terms, columns).
        is_unfilled: Whether the sums are of nothing yet; then they are made zero block by block, in the cache.
    """
    num_terms = left.shape[2]
    size, add = next((size, loop) for size, loop in LOOPS.items() if num_terms <= size)
    factors = left.to(sums.dtype).contiguous().numpy()
    terms = pad(right.to(sums.dtype), (0, 0, 0, size - num_terms)).contiguous().numpy()
    rows, columns = sums.shape
    num_threads = count_threads(terms.size * rows)
    step = max(1, min(ROWS_TOGETHER // columns, math.ceil(rows / num_threads)))
    held = sums.numpy()

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
    left, right = left.double(), right.double()  # because terms can cancel
    squares = ((left.mT @ left) * (right @ right.mT)).sum((1, 2)).clamp_(min=0)
    return torch.stack([squares, (left.sum(1) * right.sum(2)).sum(1)], 1).to(wide)

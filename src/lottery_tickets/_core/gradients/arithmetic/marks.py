"""What a sample's gradient is known by: the sum of its squares, and its sum, in whatever order it is laid out.

Gradients of samples that are mixed up can have the norm of another one by chance; seldom have they both.
"""

from typing import Final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.arithmetic.marking_cpu import fill_marks

DTYPES: Final = (torch.float32, torch.float64)
MOST_IN_LOOP: Final = 2**20  # numbers, of more torch's threads add up faster, and with less rounding


def mark(gradients: Tensor) -> Tensor:
    """Returns the sum of squares and the sum of each entry of the first dimension, shape (samples, 2)."""
    flat = gradients.flatten(1)
    is_here = type(gradients) is Tensor and gradients.device.type == "cpu" and gradients.dtype in DTYPES
    if is_here and gradients.numel() <= MOST_IN_LOOP:
        marks = flat.new_empty(flat.shape[0], 2)
        fill_marks(flat.detach().contiguous().numpy(), marks.numpy())
        return marks
    wide = torch.promote_types(gradients.dtype, torch.float32)
    # A norm squared, because it widens and squares while it reads.
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=wide)
    return torch.stack([norms.square(), flat.sum(1, dtype=wide)], 1)

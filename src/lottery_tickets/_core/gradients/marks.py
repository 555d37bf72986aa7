"""What a sample's gradient is known by: the sum of its squares, and its sum, in whatever order it is laid out.

Gradients of samples that are mixed up can have the norm of another one by chance; seldom have they both.
"""

import torch
from torch import Tensor


def mark(gradients: Tensor) -> Tensor:
    """Returns the sum of squares and the sum of each entry of the first dimension, shape (samples, 2)."""
    wide = torch.promote_types(gradients.dtype, torch.float32)
    flat = gradients.flatten(1)
    # A norm squared, because it widens and squares while it reads.
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=wide)
    return torch.stack([norms.square(), flat.sum(1, dtype=wide)], 1)

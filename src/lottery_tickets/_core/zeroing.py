"""Zeroing pruned weights in place from packed bits, to exactly +0.0, whatever was there: NaN, infinity or -0.0."""

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits

WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SMALLEST_FOR_KERNEL = 16_384  # below this numpy is as fast, and numba need not be imported


def zero_pruned_(tensor: Tensor, bits: Tensor) -> None:
    """Sets to zero, in place, every element of `tensor` whose bit is 0.

    Args:
        tensor: Any floating dtype, shape and device; its autograd history is left alone.
        bits: The packed bits of its elements, ceil(n / 8) bytes on the same device.
    """
    data = tensor.detach()
    if data.device.type != "cpu" or not data.is_contiguous():
        data.masked_fill_(~unpack_bits(bits, data.shape), 0)
        return
    words = data.view(-1).view(WORDS[data.element_size()]).numpy()
    if words.size < SMALLEST_FOR_KERNEL:
        kept = np.unpackbits(bits.numpy(), count=words.size, bitorder="little")
        np.multiply(words, kept, out=words, casting="unsafe")
        return
    from lottery_tickets._core.kernels.zeroing_cpu import zero_pruned_words  # noqa: PLC0415 - numba takes half a second

    zero_pruned_words(words, bits.numpy())

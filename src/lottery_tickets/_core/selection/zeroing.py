"""Zeroing pruned weights in place from packed bits, to exactly +0.0, whatever was there: NaN, infinity or -0.0."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.weights import INTEGERS_BY_BYTES

SMALLEST_FOR_KERNEL = 16_384  # below this numpy is as fast, and numba need not be imported


def zero_pruned_(tensor: Tensor, bits: Tensor) -> None:
    """Sets to zero, in place, every element of `tensor` whose bit is 0.

    Args:
        tensor: Any floating dtype, shape and device; its autograd history is left alone.
        bits: The packed bits of its elements, ceil(n / 8) bytes on the same device.
    """
    data = tensor.data  # faster than detach(), and writes to it are not counted as changes of the tensor
    if data.device.type != "cpu" or not data.is_contiguous():
        data.masked_fill_(~unpack_bits(bits, data.shape), 0)
        return
    words = data.view(INTEGERS_BY_BYTES[data.element_size()]).numpy().reshape(-1)
    if words.size < SMALLEST_FOR_KERNEL:
        kept = np.unpackbits(bits.numpy(), count=words.size, bitorder="little")
        # Integers, because NaN times 0 is NaN.
        np.multiply(words, kept, out=words, casting="unsafe")
    else:
        _load_kernel()(words, bits.numpy())


@cache
def _load_kernel() -> Callable[[NDArray[np.signedinteger], NDArray[np.uint8]], None]:
    from lottery_tickets._core.kernels.zeroing_cpu import zero_pruned_words  # noqa: PLC0415 - numba takes half a second

    kernel: Callable[[NDArray[np.signedinteger], NDArray[np.uint8]], None] = zero_pruned_words
    return kernel

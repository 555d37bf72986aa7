"""What the loops in Triton share: blocks of weights, packed bits, launches.

A program works on one block of 8 weights a row, because 8 bits are a byte. A thread that reads its rows whole reads 16
bytes at once, and packs or unpacks their bits by itself.
"""

from typing import Any, Final, TypeAlias

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK: Final = 4096  # weights
# What stands in a kernel: Triton's blocks and pointers, and numbers, which it passes as int32 or, where they are larger,
# as int64. Its own annotations would fix one of them.
Value: TypeAlias = Any


@triton.jit
def read_bits(bits: Value, rows: Value, lanes: Value, num_words: Value) -> Value:
    """Returns which of the words have their bit set; rows are bytes of `bits`, and what is not a word is not set."""
    packed = tl.load(bits + rows, mask=rows * 8 < num_words, other=0).to(tl.int32)
    return ((packed[:, None] >> lanes[None, :]) & 1) != 0


def is_compiled() -> bool:
    """Returns whether the kernels are compiled; else Triton's interpreter runs them, on any device."""
    return isinstance(read_bits, triton.JITFunction)


def count_blocks(words: Tensor) -> int:
    """Returns how many programs work on so many words."""
    return (words.numel() + BLOCK - 1) // BLOCK


def launch(kernel: Any, words: Tensor, *arguments: Value, **constants: int) -> None:  # noqa: ANN401 - Triton's, untyped
    """Runs a kernel on all blocks of words, on the device where they lie; the words are its first argument."""
    if words.numel():
        with torch.cuda.device_of(words):  # Triton asks which device is the current one, and not where tensors lie
            kernel[(count_blocks(words),)](words, *arguments, block=BLOCK, **constants)

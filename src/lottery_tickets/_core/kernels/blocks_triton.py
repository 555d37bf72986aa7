"""What the loops in Triton share: blocks of weights, packed bits, launches.

A program works on one block of 8 weights a row, because 8 bits are a byte. A thread that reads its rows whole reads 16
bytes at once, and packs or unpacks their bits by itself. In a kernel all is a `tl.tensor`: pointers, blocks, numbers.
"""

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK: Final = 4096  # weights
OPTIONS: Final = {"enable_fp_fusion": False}  # there are no floats; Triton warns where it is left to choose


@triton.jit
def read_bits(bits: tl.tensor, rows: tl.tensor, lanes: tl.tensor, num_words: tl.tensor) -> tl.tensor:
    """Returns which of the words have their bit set; rows are bytes of `bits`, and what is not a word is not set."""
    packed = tl.load(bits + rows, mask=rows * 8 < num_words, other=0).to(tl.int32)
    return ((packed[:, None] >> lanes[None, :]) & 1) != 0


def is_compiled() -> bool:
    """Returns whether the kernels are compiled; else Triton's interpreter runs them, on any device."""
    return isinstance(read_bits, triton.JITFunction)


def count_blocks(words: Tensor) -> int:
    """Returns how many programs work on so many words."""
    return (words.numel() + BLOCK - 1) // BLOCK


def launch(kernel: Any, words: Tensor, *arguments: Tensor | int | None, **constants: int) -> None:  # noqa: ANN401 - Triton's
    """Runs a kernel on all blocks of words, on the device where they lie; the words are its first argument."""
    if words.numel():
        with torch.cuda.device_of(words):  # Triton asks which device is the current one, and not where tensors lie
            kernel[(count_blocks(words),)](words, *arguments, block=BLOCK, **constants, **OPTIONS)


def bring(found: Tensor, target: Tensor) -> None:
    """Copies what lies on a GPU to a tensor on the CPU, by way of page-locked memory: many times as fast as without."""
    if found.device.type == "cuda":
        staged = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)  # torch keeps such memory for the next
        staged.copy_(found, non_blocking=True)
        torch.cuda.current_stream(found.device).synchronize()
        found = staged
    target.copy_(found)

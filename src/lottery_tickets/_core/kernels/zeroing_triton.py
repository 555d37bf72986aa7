"""The loops over pruned weights in Triton, from packed bits: they read one bit a weight, and touch the pruned alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lottery_tickets._core.kernels.blocks_triton import count_blocks, launch, read_bits


def zero_pruned_words(words: Tensor, bits: Tensor) -> None:
    """Zeroes, in place, the words whose bit is 0.

    Args:
        words: The weights seen as signed integers of their own width, 1-D, n words.
        bits: ceil(n / 8) bytes, little bit order, on the device of the words.
    """
    launch(_zero, words, bits, words.numel())


def any_pruned_word(words: Tensor, bits: Tensor) -> bool:
    """Returns whether a word whose bit is 0 is a number other than zero: its sign alone does not count.

    Args:
        words: As for `zero_pruned_words`.
        bits: As for `zero_pruned_words`.
    """
    found = torch.empty(count_blocks(words), dtype=torch.int32, device=words.device)
    launch(_find, words, bits, words.numel(), found, mask=torch.iinfo(words.dtype).max)
    return bool(found.any())


@triton.jit
def _zero(words: tl.tensor, bits: tl.tensor, num_words: tl.tensor, block: tl.constexpr) -> None:
    start = tl.program_id(0).to(tl.int64) * block
    rows, lanes = tl.arange(0, block // 8), tl.arange(0, 8)
    places = rows[:, None] * 8 + lanes[None, :]
    is_kept = read_bits(bits + start // 8, rows, lanes, num_words - start)
    tl.store(words + start + places, 0, mask=(places < num_words - start) & (is_kept == 0))


@triton.jit
def _find(
    words: tl.tensor, bits: tl.tensor, num_words: tl.tensor, found: tl.tensor, mask: tl.constexpr, block: tl.constexpr
) -> None:
    program = tl.program_id(0)
    start = program.to(tl.int64) * block
    rows, lanes = tl.arange(0, block // 8), tl.arange(0, 8)
    places = rows[:, None] * 8 + lanes[None, :]
    is_kept = read_bits(bits + start // 8, rows, lanes, num_words - start)
    is_pruned = (places < num_words - start) & (is_kept == 0)
    patterns = tl.load(words + start + places, mask=is_pruned, other=0) & mask
    tl.store(found + program, tl.max(tl.max((patterns != 0).to(tl.int32), axis=1), axis=0))

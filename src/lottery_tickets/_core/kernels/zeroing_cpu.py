"""The numba loops over pruned weights, from packed bits: they read one bit and touch one word a weight."""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def zero_pruned_words(words: NDArray[np.signedinteger], bits: NDArray[np.uint8]) -> None:
    """Zeroes, in place, the words whose bit is 0.

    Args:
        words: The weights seen as signed integers of their own width, 1-D, n words.
        bits: ceil(n / 8) bytes, little bit order.
    """
    blocks = words.size // 64
    bits64 = bits[: 8 * blocks].view(np.uint64)
    for block in range(blocks):
        kept = bits64[block]
        # 64 lanes without a branch: LLVM turns the shift and the negation into vector instructions.
        for lane in range(64):
            words[64 * block + lane] &= -words.dtype.type((kept >> np.uint64(lane)) & np.uint64(1))
    for i in range(64 * blocks, words.size):
        if not (bits[i >> 3] >> (i & 7)) & 1:
            words[i] = 0


@numba.njit(cache=True, nogil=True)
def any_pruned_word(words: NDArray[np.signedinteger], bits: NDArray[np.uint8]) -> bool:
    """Returns whether a word whose bit is 0 is a number other than zero: its sign alone does not count.

    Args:
        words: As for `zero_pruned_words`.
        bits: As for `zero_pruned_words`.
    """
    blocks = words.size // 64
    bits64 = bits[: 8 * blocks].view(np.uint64)
    for block in range(blocks):
        pruned = ~bits64[block]
        found = words.dtype.type(0)
        for lane in range(64):
            found |= (words[64 * block + lane] << 1) & -words.dtype.type((pruned >> np.uint64(lane)) & np.uint64(1))
        if words.dtype.type(found):
            return True
    for i in range(64 * blocks, words.size):
        if not (bits[i >> 3] >> (i & 7)) & 1 and words.dtype.type(words[i] << 1):
            return True
    return False

"""The numba loop that zeroes pruned weights from packed bits: it reads one bit and touches one word a weight."""

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

"""The numba loops that draw uniform numbers: those of torch's CPU generator, several times as fast and from any place.

It is the Mersenne Twister (Matsumoto and Nishimura 1998): 624 words of 32 bits that are turned into the next 624. Two
words, scrambled, make a float64 of 53 random bits.
"""

import numba
import numpy as np
from numpy.typing import NDArray

NUM_WORDS = 624
NUM_DRAWN = NUM_WORDS // 2  # numbers in [0, 1) that one state gives
MIDDLE = 397
REST = NUM_WORDS - MIDDLE
UPPER, LOWER, MATRIX = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
MASK = np.uint64((1 << 53) - 1)


@numba.njit(cache=True, nogil=True)
def seed_state(seed: int) -> NDArray[np.uint32]:
    """Returns the words of a seed, of which 32 bits count; those of the first numbers come after one turn."""
    words = np.empty(NUM_WORDS, np.uint32)
    word = np.uint64(seed & 0xFFFFFFFF)
    for i in range(NUM_WORDS):
        words[i] = word
        word = (np.uint64(1812433253) * (word ^ (word >> np.uint64(30))) + np.uint64(i + 1)) & np.uint64(0xFFFFFFFF)
    return words


@numba.njit(cache=True, nogil=True)
def advance(words: NDArray[np.uint32], num_turns: int) -> NDArray[np.uint32]:
    """Returns the words after so many turns."""
    words, spare = words.copy(), np.empty_like(words)
    for _ in range(num_turns):
        _turn(words, spare)
        words, spare = spare, words
    return words


@numba.njit(cache=True, nogil=True)
def draw_from(words: NDArray[np.uint32], first: int, numbers: NDArray[np.float64]) -> None:
    """Writes the numbers that follow.

    Args:
        words: Those that give the first number.
        first: Which of their numbers that is, less than `NUM_DRAWN`.
        numbers: Where to.
    """
    words, spare, scrambled = words.copy(), np.empty_like(words), np.empty_like(words)
    pairs = scrambled.view(np.uint64)
    done = 0
    while done < numbers.size:
        _scramble(words, scrambled)
        count = min(NUM_DRAWN - first, numbers.size - done)
        _combine(pairs[first : first + count], numbers[done : done + count])
        done, first = done + count, 0
        _turn(words, spare)
        words, spare = spare, words


@numba.njit(cache=True, nogil=True)
def _turn(words: NDArray[np.uint32], made: NDArray[np.uint32]) -> None:
    """Writes the next words; in loops of which none needs what it has just made, so that LLVM makes vectors of them."""
    for i in range(REST):
        made[i] = _mix(words[i], words[i + 1], words[i + MIDDLE])
    for i in range(REST, 2 * REST):
        made[i] = _mix(words[i], words[i + 1], made[i - REST])
    for i in range(2 * REST, NUM_WORDS - 1):
        made[i] = _mix(words[i], words[i + 1], made[i - REST])
    made[-1] = _mix(words[-1], made[0], made[MIDDLE - 1])


@numba.njit(cache=True, nogil=True)
def _mix(word: np.uint32, following: np.uint32, far: np.uint32) -> np.uint32:
    joined = np.uint32((word & UPPER) | (following & LOWER))
    return far ^ np.uint32(joined >> np.uint32(1)) ^ np.uint32(np.uint32(joined & np.uint32(1)) * MATRIX)


@numba.njit(cache=True, nogil=True)
def _scramble(words: NDArray[np.uint32], scrambled: NDArray[np.uint32]) -> None:
    for i in range(scrambled.size):
        word = words[i]
        word ^= word >> np.uint32(11)
        word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
        word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
        scrambled[i] = word ^ (word >> np.uint32(18))


@numba.njit(cache=True, nogil=True)
def _combine(pairs: NDArray[np.uint64], numbers: NDArray[np.float64]) -> None:
    """Makes numbers of pairs of words, of which the first has the upper bits."""
    for i in range(numbers.size):
        bits = ((pairs[i] << np.uint64(32)) | (pairs[i] >> np.uint64(32))) & MASK
        numbers[i] = np.int64(bits) * 2.0**-53

"""Zeroing pruned weights in place from packed bits, to exactly +0.0, whatever was there: NaN, infinity or -0.0."""

from collections.abc import Callable
from functools import cache
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.weights import INTEGERS_BY_BYTES

SMALLEST_FOR_KERNEL: Final = 16_384  # below this numpy is as fast, and numba need not be imported

Words = NDArray[np.signedinteger]


def zero_pruned_(tensor: Tensor, bits: Tensor) -> None:
    """Sets to zero, in place, every element of `tensor` whose bit is 0.

    Args:
        tensor: Any floating dtype, shape and device; its autograd history is left alone.
        bits: The packed bits of its elements, ceil(n / 8) bytes on the same device.
    """
    data = tensor.data  # faster than detach(), and writes to it are not counted as changes of the tensor
    words = _see_words(data)
    if words is None:
        data.masked_fill_(~unpack_bits(bits, data.shape), 0)
    elif words.size < SMALLEST_FOR_KERNEL:
        _zero_words(words, bits.numpy())
    else:
        _load_kernels()[0](words, bits.numpy())


@final
class PrunedPlaces:
    """The pruned places of one parameter, made ready for being zeroed at every step.

    Args:
        bits: The packed bits of its elements, on the CPU.
        compiled: Whether the compiled loops work; they take a third of numpy's time also where they are not needed.
        unpacked: Whether there is memory for a byte a weight where no loop of ours reaches, as on a GPU: to unpack bits
            at each use takes as many launches as all the rest of holding.
    """

    def __init__(self, bits: Tensor, *, compiled: bool, unpacked: bool = True) -> None:
        self.bits = bits.clone()  # the kernels read eight bytes at a time: a slice of a loaded file may not be aligned
        self._elsewhere = self.bits  # the bits where the tensors are, if that is not the CPU
        self._keeps_unpacked = unpacked
        self._pruned: Tensor | None = None  # unpacked, where the tensors are
        self._packed = self.bits.numpy()
        self._zero, self._any_nonzero = _load_kernels() if compiled else (_zero_words, _any_nonzero_words)
        self._own: Words | None = None
        self._own_place: tuple[int, bool] | None = None

    def zero_(self, tensor: Tensor) -> None:
        """Zeroes the pruned places of a tensor of the parameter's shape."""
        data = tensor.data
        words = _see_words(data)
        if words is None:
            data.masked_fill_(self._find_pruned(data), 0)
        else:
            self._zero(words, self._packed)

    def has_moved(self, parameter: Tensor) -> bool:
        """Returns whether the parameter's memory is another than `learn` learnt."""
        return self._own_place != (parameter.data_ptr(), parameter.is_contiguous())

    def learn(self, parameter: Tensor) -> None:
        """Learns where the parameter lies, which is most of the time that zeroing a small layer takes."""
        # Its own memory, also where a mode shows others something else.
        with torch._C.DisableTorchFunction():  # noqa: SLF001 - torch has no public name for it
            self._own = _see_words(parameter.data)
            self._own_place = (parameter.data_ptr(), parameter.is_contiguous())

    def zero_own_(self, parameter: Tensor) -> None:
        """Zeroes the pruned places of the parameter itself, which has not moved since `learn`."""
        if self._own is not None:
            self._zero(self._own, self._packed)
        else:
            with torch._C.DisableTorchFunction():  # noqa: SLF001 - as above
                data = parameter.data
                data.masked_fill_(self._find_pruned(data), 0)

    def any_nonzero(self, tensor: Tensor) -> bool:
        """Returns whether a tensor of the parameter's shape has a number other than zero at a pruned place."""
        data = tensor.data
        words = _see_words(data)
        if words is None:
            return bool((data.masked_fill(~self._find_pruned(data), 0) != 0).any())
        return self._any_nonzero(words, self._packed)

    def _find_pruned(self, data: Tensor) -> Tensor:
        """Returns True where a tensor of the parameter's shape is pruned, beside the tensor."""
        if self._pruned is not None and self._pruned.device == data.device:
            return self._pruned
        if self._elsewhere.device != data.device:  # the model moved
            self._elsewhere = self.bits.to(data.device)
        pruned = unpack_bits(self._elsewhere, data.shape).logical_not_()
        if self._keeps_unpacked:
            self._pruned, self._elsewhere = pruned, self.bits
        return pruned


def _see_words(data: Tensor) -> Words | None:
    """Returns the memory of a tensor as a flat array of integers; None where no loop of ours reaches it."""
    if data.device.type != "cpu" or not data.is_contiguous():
        return None
    words: Words = data.view(INTEGERS_BY_BYTES[data.element_size()]).numpy().reshape(-1)
    return words


def _zero_words(words: Words, bits: NDArray[np.uint8]) -> None:
    kept = np.unpackbits(bits, count=words.size, bitorder="little")
    np.multiply(words, kept, out=words, casting="unsafe")  # as integers, because NaN times 0 is NaN


def _any_nonzero_words(words: Words, bits: NDArray[np.uint8]) -> bool:
    pruned = np.unpackbits(bits, count=words.size, bitorder="little") == 0
    return bool((words[pruned] << 1).any())  # without the sign, because -0.0 is zero


@cache
def _load_kernels() -> tuple[Callable[[Words, NDArray[np.uint8]], None], Callable[[Words, NDArray[np.uint8]], bool]]:
    from lottery_tickets._core.kernels.zeroing_cpu import (  # noqa: PLC0415 - numba takes half a second
        any_pruned_word,
        zero_pruned_words,
    )

    return zero_pruned_words, any_pruned_word

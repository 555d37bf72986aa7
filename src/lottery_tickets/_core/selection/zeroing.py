"""Zeroing pruned weights in place from packed bits, to exactly +0.0, whatever was there: NaN, infinity or -0.0."""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.kernels.trusted import find_trusted
from lottery_tickets._core.selection.patterns import WORDS
from lottery_tickets._core.weights import INTEGERS_BY_BYTES

SMALLEST_FOR_KERNEL: Final = 16_384  # below this numpy is as fast, and numba need not be imported
# Weights of one tensor that is zeroed once: loops that are compiled and tried first must earn that.
SMALLEST_FOR_TRITON: Final = 1 << 24

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
        loops = _find_loops_for_device(data) if data.numel() >= SMALLEST_FOR_TRITON else None
        if loops is None:
            data.masked_fill_(~unpack_bits(bits, data.shape), 0)
        else:
            loops.zero_pruned_words(_flatten(data), bits)
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
        unpacked: Whether there is memory for a byte a weight where no loop for the CPU reaches, as on a GPU: to unpack
            bits at each use takes as many launches as all the rest of holding. Where there is none and the loops in
            Triton can be trusted, these read the bits as they are.
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
            self._zero_elsewhere(data)
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
                self._zero_elsewhere(parameter.data)

    def fill_(self, tensor: Tensor, values: Tensor) -> None:
        """Gives the pruned places of a tensor of the parameter's shape the bits that values of its dtype have there."""
        with torch._C.DisableTorchFunction():  # noqa: SLF001 - as above
            words = see_bits(tensor.data)
            torch.where(self._find_pruned(words), see_bits(values), words, out=words)

    def any_nonzero(self, tensor: Tensor) -> bool:
        """Returns whether a tensor of the parameter's shape has a number other than zero at a pruned place."""
        data = tensor.data
        words = _see_words(data)
        if words is not None:
            return self._any_nonzero(words, self._packed)
        if loops := self._find_loops(data):
            found: bool = loops.any_pruned_word(_flatten(data), self._find_bits(data))
            return found
        return bool((data.masked_fill(~self._find_pruned(data), 0) != 0).any())

    def _zero_elsewhere(self, data: Tensor) -> None:
        if loops := self._find_loops(data):
            loops.zero_pruned_words(_flatten(data), self._find_bits(data))
        else:
            data.masked_fill_(self._find_pruned(data), 0)

    def _find_loops(self, data: Tensor) -> ModuleType | None:
        return None if self._keeps_unpacked else _find_loops_for_device(data)

    def _find_bits(self, data: Tensor) -> Tensor:
        """Returns the packed bits beside the tensor."""
        if self._elsewhere.device != data.device:  # the model moved
            self._elsewhere = self.bits.to(data.device)
        return self._elsewhere

    def _find_pruned(self, data: Tensor) -> Tensor:
        """Returns True where a tensor of the parameter's shape is pruned, beside the tensor."""
        if self._pruned is not None and self._pruned.device == data.device:
            return self._pruned
        pruned = unpack_bits(self._find_bits(data), data.shape).logical_not_()
        if self._keeps_unpacked:
            self._pruned, self._elsewhere = pruned, self.bits
        return pruned


def see_bits(tensor: Tensor) -> Tensor:
    """Returns a tensor of floats as integers, in the same memory."""
    return tensor.view(INTEGERS_BY_BYTES[tensor.element_size()])


def _see_words(data: Tensor) -> Words | None:
    """Returns the memory of a tensor as a flat array of integers; None where no loop of ours reaches it."""
    if data.device.type != "cpu" or not data.is_contiguous():
        return None
    words: Words = _flatten(data).numpy()
    return words


def _flatten(data: Tensor) -> Tensor:
    """Returns a contiguous tensor as a flat one of integers, in the same memory."""
    return see_bits(data).view(-1)


def _find_loops_for_device(data: Tensor) -> ModuleType | None:
    """Returns the loops in Triton where they reach a tensor; None where plain torch zeroes."""
    if not data.is_contiguous() or data.dtype not in WORDS:
        return None
    return find_trusted("zeroing", data.device, data.dtype)


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

"""Boolean tensors as packed bits: the weight at flat position i is bit i % 8 of byte i // 8, padding bits are zero."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORD_BYTES: Final = 8
CHUNK_BYTES: Final = 1 << 18


def pack_bits(kept: Tensor) -> Tensor:
    """Returns a 1-D uint8 CPU tensor of ceil(n / 8) bytes holding a boolean tensor of n elements in C order."""
    flat = kept.detach().to(device="cpu", dtype=torch.bool).contiguous().view(-1).numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the boolean tensor of the given shape that `pack_bits` packed, on the device of `bits`."""
    size = torch.Size(shape)
    if bits.device.type == "cpu":
        flat = np.unpackbits(bits.numpy(), count=size.numel(), bitorder="little")
        return torch.from_numpy(flat).view(torch.bool).view(size)  # a byte 0 or 1 is a bool: nothing is copied
    lanes = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, None] >> lanes) & 1).view(-1)[: size.numel()].bool().view(size)


def cut_bits(bits: Tensor, start: int, stop: int) -> Tensor:
    """Returns those of packed CPU bits from number start to stop, packed; what is whole bytes is not copied."""
    if start % 8 == stop % 8 == 0:
        return bits[start // 8 : stop // 8]
    parts = [torch.empty(0, dtype=torch.uint8)]
    for first in range(start, stop, 8 * CHUNK_BYTES):
        last = min(first + 8 * CHUNK_BYTES, stop)
        flat = np.unpackbits(bits[first // 8 : num_bytes(last)].numpy(), bitorder="little")
        packed = np.packbits(flat[first % 8 :][: last - first], bitorder="little")
        parts.append(torch.from_numpy(packed))
    return torch.cat(parts)


def count_bits(bits: Tensor) -> int:
    """Returns how many bits are set."""
    return sum(int(np.bitwise_count(words).sum(dtype=np.int64)) for words in _cut(bits))


def count_common_bits(first: Tensor, second: Tensor) -> int:
    """Returns how many bits are set in both of two tensors of one length."""
    pairs = zip(_cut(first), _cut(second), strict=True)
    return sum(int(np.bitwise_count(a & b).sum(dtype=np.int64)) for a, b in pairs)


def count_different_bits(first: Tensor, second: Tensor) -> int:
    """Returns how many bits are set in one of two tensors of one length and not in the other."""
    pairs = zip(_cut(first), _cut(second), strict=True)
    return sum(int(np.bitwise_count(a ^ b).sum(dtype=np.int64)) for a, b in pairs)


def _cut(bits: Tensor) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yields the bytes eight at a time, in pieces that stay in the cache, then those that are left over."""
    flat = bits.numpy()
    num_whole = len(flat) // WORD_BYTES * WORD_BYTES
    for start in range(0, num_whole, CHUNK_BYTES):
        yield flat[start : min(start + CHUNK_BYTES, num_whole)].view(np.uint64)
    if num_whole < len(flat):
        yield flat[num_whole:]


def num_bytes(num_weights: int) -> int:
    """Returns the bytes that pack so many weights."""
    return (num_weights + 7) // 8

"""The loops of rank correlation in torch, for any device, and numpy: what each kernel must compute, bit for bit.

`words` are floats seen as signed integers of their own width, 1-D; with the sign bit cleared they are patterns, which
sort like magnitudes. A code is one of 65,536 integers that sort like magnitudes too, held in int16 and read as uint16.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOW_BITS = 15  # of a float32's pattern of 31; the 16 above number its bin


def count_bins(words: Tensor, share: int, bins: NDArray[np.int64]) -> None:
    """Adds the share of one weight to the bin of each: its pattern's upper 16 bits.

    Args:
        words: float32 seen as int32.
        share: What one weight adds.
        bins: 65,536 sums, which are added to.
    """
    patterns = words & torch.iinfo(words.dtype).max
    counts = torch.bincount(patterns >> LOW_BITS).cpu().numpy()
    bins[: len(counts)] += counts * share


def encode(words: Tensor, table: NDArray[np.uint32], codes: Tensor) -> None:
    """Writes the code of each weight: its bin's first code plus its place in the bin, scaled to the bin's codes.

    Args:
        words: float32 seen as int32.
        table: For each bin its first code, in the upper 16 bits, and its number of codes, in the lower.
        codes: int16 on the CPU, as many as words, written to.
    """
    # In place, because memory that is asked for anew takes longer to come than these sums.
    patterns = words & torch.iinfo(words.dtype).max
    first = torch.from_numpy(table.view(np.int32)).to(words.device).index_select(0, patterns >> LOW_BITS)
    width = first & 0xFFFF
    first.bitwise_right_shift_(16).bitwise_and_(0xFFFF)
    places = patterns.bitwise_and_((1 << LOW_BITS) - 1)
    found = places.mul_(width).bitwise_right_shift_(LOW_BITS).add_(first)  # 65,535 * 32,767 fits 31 bits
    codes.copy_(found.bitwise_xor_(0x8000).sub_(0x8000).to(torch.int16))  # the int16 with the bits of this uint16


def clear_signs(words: Tensor, codes: Tensor) -> int:
    """Writes the patterns of floats of 16 bits, which are their codes; returns the largest pattern.

    Args:
        words: float16 or bfloat16 seen as int16.
        codes: int16 on the CPU, as many as words, written to.
    """
    patterns = words & torch.iinfo(words.dtype).max
    codes.copy_(patterns)
    return int(patterns.max())


def count_codes(codes: NDArray[np.uint16], counts: NDArray[np.unsignedinteger]) -> None:
    """Counts codes.

    Args:
        codes: 1-D.
        counts: 65,536 counters, which are added to.
    """
    counts += torch.bincount(_to_places(codes), minlength=len(counts)).numpy().astype(counts.dtype, copy=False)


def sum_products(
    earlier: NDArray[np.uint16],
    later: NDArray[np.uint16],
    earlier_ranks: NDArray[np.uint32],
    later_ranks: NDArray[np.uint32],
) -> int:
    """Returns the exact sum over all weights of the product of their two ranks.

    Args:
        earlier: The weights' codes, 1-D, at most 2^31.
        later: As many codes of the same weights.
        earlier_ranks: The rank of each of 65,536 earlier codes.
        later_ranks: The rank of each of 65,536 later codes.
    """
    ranks = [
        look_up(table.astype(np.int64), codes) for table, codes in ((earlier_ranks, earlier), (later_ranks, later))
    ]
    if int(earlier_ranks.max()) * int(later_ranks.max()) * len(earlier) < 1 << 63:
        return int(ranks[0] @ ranks[1])
    halves = [(rank & 0xFFFF, rank >> 16) for rank in ranks]
    # In halves of 16 bits, because a product of ranks of 32 bits leaves no bit for a sum.
    sums = [[int(one @ other) for other in halves[1]] for one in halves[0]]
    return sums[0][0] + ((sums[0][1] + sums[1][0]) << 16) + (sums[1][1] << 32)


def look_up(table: NDArray[np.int64], codes: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Returns for each code what a table of 65,536 says."""
    found: NDArray[np.int64] = torch.from_numpy(table).index_select(0, _to_places(codes)).numpy()
    return found


def num_workers() -> int:
    """Returns how many chunks are worked on at a time: one, torch uses its threads inside a chunk."""
    return 1


def _to_places(codes: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(codes.astype(np.int32))  # torch counts and looks up by these in a third of numpy's time

"""Keeping the same number in each of many small groups: the inputs of one output, or N of each M of them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import pack_bits, unpack_bits
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes, slice_flat

WEIGHTS_PER_SORT: Final = 1 << 20


def select_in_rows(
    name: str, score: Tensor, output_dims: Sequence[int], sparsity: float, *, within: Tensor | None
) -> Tensor:
    """Returns the packed bits of the largest magnitudes of each output: of n inputs, n - round(sparsity * n).

    Args:
        name: What the score is called in error messages.
        score: Of any float dtype.
        output_dims: The dimensions that number the outputs.
        sparsity: The share removed of each output's inputs.
        within: The packed bits that may be kept.

    Raises:
        ValueError: When a score is not finite, or `within` has too few bits in some output.
    """
    outputs, inputs = _split_dims(score, output_dims)
    length = int(np.prod([score.shape[dim] for dim in inputs]))
    return _select_in_groups(name, score, [*outputs, *inputs], (length - round(sparsity * length), length), within)


def select_in_blocks(
    name: str, score: Tensor, output_dims: Sequence[int], n_of_m: tuple[int, int], *, within: Tensor | None
) -> Tensor:
    """Returns the packed bits of the N largest magnitudes of each M neighbours along the inputs.

    Args:
        name: What the score is called in error messages.
        score: Of any float dtype, with two dimensions or more.
        output_dims: The dimensions that number the outputs; blocks lie along the first dimension that is none of them.
        n_of_m: N and M; M divides the number of inputs.
        within: The packed bits that may be kept.

    Raises:
        ValueError: When a score is not finite, M does not divide the inputs, or `within` has too few bits.
    """
    outputs, inputs = _split_dims(score, output_dims)
    num_kept, block = n_of_m
    num_inputs = score.shape[inputs[0]] if inputs else 1
    if num_inputs % block:
        raise ValueError(
            f"{num_kept}:{block} must divide the inputs of {name!r}, but it has {num_inputs} of them in "
            f"shape {tuple(score.shape)}; leave it out with exclude="
        )
    return _select_in_groups(name, score, [*outputs, *inputs[1:], *inputs[:1]], n_of_m, within)


def _split_dims(score: Tensor, output_dims: Sequence[int]) -> tuple[list[int], list[int]]:
    outputs = [dim for dim in output_dims if dim < score.ndim]
    return outputs, [dim for dim in range(score.ndim) if dim not in outputs]


def _select_in_groups(
    name: str, score: Tensor, order: Sequence[int], n_of_m: tuple[int, int], within: Tensor | None
) -> Tensor:
    """Keeps N of each M scores that follow each other once the dimensions are put in this order."""
    num_kept, length = n_of_m
    permuted = score.detach().permute(*order)
    magnitudes = Magnitudes([permuted], names=[name])
    eligible = None if within is None else unpack_bits(within, score.shape).permute(*order)
    kept = torch.zeros(permuted.shape, dtype=torch.bool)
    step = max(1, WEIGHTS_PER_SORT // max(1, length)) * length
    for start in range(0, score.numel(), step or 1):
        chunk = Chunk(0, start, min(start + step, score.numel()))
        words = magnitudes.words(chunk).cpu()
        patterns = (words & torch.iinfo(words.dtype).max).view(-1, length)
        if int(patterns.max()) >= magnitudes.infinity:
            raise ValueError(f"{name!r} must be finite to be ranked, but holds NaN or infinity; find where it diverged")
        if eligible is not None:
            patterns = patterns.masked_fill(~slice_flat(eligible, chunk.start, chunk.stop).view(-1, length), -1)
            fewest = int((patterns >= 0).sum(dim=1).min())
            if fewest < num_kept:
                raise ValueError(
                    f"each group of {length} in {name!r} must keep {num_kept}, but `within` leaves only {fewest} "
                    "in one; ask for a higher sparsity"
                )
        places = patterns.sort(dim=1, descending=True, stable=True).indices[:, :num_kept]
        kept.view(-1)[chunk.start : chunk.stop].view(-1, length).scatter_(1, places, value=True)
    return pack_bits(kept.permute(*np.argsort(order).tolist()) if kept.ndim else kept)

"""Keeping the same number in each of many small groups: the inputs of one output, or N of each M of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import pack_bits, unpack_bits
from lottery_tickets._core.selection.patterns import Magnitudes
from lottery_tickets._core.sharding.pieces import Piece, gather_whole
from lottery_tickets._core.weights import TensorWeight, Weight, Weights, slice_flat

WEIGHTS_PER_SORT: Final = 1 << 20
WEIGHTS_PER_SORT_ON_DEVICE: Final = 1 << 23  # each takes some 20 bytes there


def select_in_rows(weights: Weights, sparsity: float, *, within: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Returns the packed bits of the largest magnitudes of each output: of n inputs, n - round(sparsity * n).

    Args:
        weights: Of any float dtype.
        sparsity: The share removed of each output's inputs.
        within: For each name the packed bits that may be kept.

    Raises:
        ValueError: When a magnitude is not finite, or `within` has too few bits in some output.
    """

    def select(weight: Weight, eligible: Tensor | None) -> Tensor:
        outputs, inputs = _split_dims(weight)
        length = int(np.prod([weight.whole_shape[dim] for dim in inputs]))
        return _select_in_groups(weight, [*outputs, *inputs], (length - round(sparsity * length), length), eligible)

    def is_whole(weight: Weight, piece: Piece) -> bool:
        return all(len(piece.indices[dim]) == piece.whole[dim] for dim in _split_dims(weight)[1])

    return _select_each(weights, select, is_whole, within)


def select_in_blocks(
    weights: Weights, n_of_m: tuple[int, int], *, within: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Returns the packed bits of the N largest magnitudes of each M neighbours along the inputs.

    Args:
        weights: Of any float dtype, with two dimensions or more; blocks lie along the first dimension that numbers no
            outputs.
        n_of_m: N and M; M divides the number of inputs.
        within: For each name the packed bits that may be kept.

    Raises:
        ValueError: When a magnitude is not finite, M does not divide the inputs, or `within` has too few bits.
    """
    num_kept, block = n_of_m

    def select(weight: Weight, eligible: Tensor | None) -> Tensor:
        outputs, inputs = _split_dims(weight)
        num_inputs = weight.whole_shape[inputs[0]] if inputs else 1
        if num_inputs % block:
            raise ValueError(
                f"{num_kept}:{block} must divide the inputs of {weight.name!r}, but it has {num_inputs} of them in "
                f"shape {tuple(weight.whole_shape)}; leave it out with exclude="
            )
        return _select_in_groups(weight, [*outputs, *inputs[1:], *inputs[:1]], n_of_m, eligible)

    def is_whole(weight: Weight, piece: Piece) -> bool:
        return all(_has_whole_blocks(piece.indices[dim], block) for dim in _split_dims(weight)[1][:1])

    return _select_each(weights, select, is_whole, within)


def _select_each(
    weights: Weights,
    select: Callable[[Weight, Tensor | None], Tensor],
    is_whole: Callable[[Weight, Piece], bool],
    within: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Returns packed bits by name; where processes share the elements of one group, each has the weight whole."""
    together, pieces = weights.together, {} if weights.shards is None else weights.shards.pieces

    def find_split() -> NDArray[np.int64]:
        return np.array([not is_whole(weights[name], piece) for name, piece in pieces.items()], dtype=np.int64)

    num_split = together.sum(len(pieces), find_split)
    split = {name: piece for (name, piece), number in zip(pieces.items(), num_split, strict=True) if number}
    bits: dict[str, Tensor] = {}
    for name, weight in weights.items():
        eligible = None if within is None else within[name]
        piece = split.get(name)
        if piece is None:
            bits[name] = together.agree(partial(select, weight, eligible))
            continue
        values = gather_whole(weight.read(0, weight.size).view(weight.shape), piece, together)
        if eligible is not None:
            eligible = pack_bits(gather_whole(unpack_bits(eligible, weight.shape), piece, together))
        whole = TensorWeight(name, values, weight.output_dims)
        kept = unpack_bits(together.agree(partial(select, whole, eligible)), values.shape)
        bits[name] = pack_bits(piece.cut(kept))
    return bits


def _has_whole_blocks(index: NDArray[np.int64], block: int) -> bool:
    """Returns whether indices are whole blocks of neighbours, the first of each a multiple of their number."""
    firsts = index[::block]
    return np.array_equal(index, (firsts[:, None] + np.arange(block)).reshape(-1)) and not (firsts % block).any()


def _split_dims(weight: Weight) -> tuple[list[int], list[int]]:
    outputs = [dim for dim in weight.output_dims if dim < len(weight.shape)]
    return outputs, [dim for dim in range(len(weight.shape)) if dim not in outputs]


def _select_in_groups(weight: Weight, order: Sequence[int], n_of_m: tuple[int, int], within: Tensor | None) -> Tensor:
    """Keeps N of each M magnitudes that follow each other once the dimensions are put in this order."""
    num_kept, length = n_of_m
    magnitudes = Magnitudes(Weights([weight]))
    eligible = None if within is None else unpack_bits(within, weight.shape).permute(tuple(order))
    kept = torch.zeros([weight.shape[dim] for dim in order], dtype=torch.bool)
    together = WEIGHTS_PER_SORT if magnitudes.is_on_cpu else WEIGHTS_PER_SORT_ON_DEVICE
    step = max(1, together // max(1, length)) * length
    for start in range(0, weight.size, step or 1):
        stop = min(start + step, weight.size)
        words = magnitudes.to_words(weight.read(start, stop, order))
        patterns = (words & torch.iinfo(words.dtype).max).view(-1, length)
        if int(patterns.max()) >= magnitudes.infinity:
            raise ValueError(
                f"{weight.name!r} must be finite to be ranked, but holds NaN or infinity; find where it diverged"
            )
        if eligible is not None:
            allowed = slice_flat(eligible, start, stop).view(-1, length).to(words.device)
            patterns = patterns.masked_fill(~allowed, -1)
            fewest = int((patterns >= 0).sum(dim=1).min())
            if fewest < num_kept:
                raise ValueError(
                    f"each group of {length} in {weight.name!r} must keep {num_kept}, but `within` leaves only "
                    f"{fewest} in one; ask for a higher sparsity"
                )
        # Stable, so that of equal magnitudes the earlier is kept.
        places = patterns.sort(dim=1, descending=True, stable=True).indices[:, :num_kept]
        chosen = torch.zeros_like(patterns, dtype=torch.bool).scatter_(1, places, value=True)
        kept.view(-1)[start:stop] = chosen.view(-1)
    return pack_bits(kept.permute(tuple(np.argsort(order).tolist())) if kept.ndim else kept)

"""The mask of the weights that a training changed, as they are stored; or of those that it changed most."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, TypeVar, get_args

import torch
from torch import Tensor

from lottery_tickets._core.bits import pack_bits
from lottery_tickets._core.prunable_weights import Choices
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.weights import READERS, Weight, Weights
from lottery_tickets.changes.differences import (
    WEIGHTS_PER_BLOCK,
    AnyWeights,
    Combine,
    divide,
    find_differences,
    is_changed,
    pair_weights,
    subtract,
)
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import describe_mask

By = Literal["stored", "delta", "relative"]
Seen = TypeVar("Seen")

SIZES: Final[dict[str, Combine]] = {"delta": subtract, "relative": divide}


def compute_change_mask(
    before: AnyWeights,
    after: AnyWeights,
    *,
    by: By = "stored",
    sparsity: float | None = None,
    scope: str = "global",
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> Mask:
    """Returns the mask that keeps the weights that changed, or those that changed most.

    A weight changed if it is stored as other bits; 0.0 and -0.0 are one number, so that is no change. The largest
    changes are chosen as all masks choose: exactly, equal ones by position, the first kept. They are a subset of those
    that changed. Weights are read in blocks and never whole: a checkpoint may be larger than memory.

    Args:
        before: A model, a mapping of weights by name such as a state dict, or a `CheckpointWeights`.
        after: Likewise, with the same names, shapes and dtypes.
        by: "stored", every weight that changed; "delta", the largest |after - before|; "relative", the largest
            |after - before| / max(|before|, |after|).
        sparsity: The share of all weights that the mask leaves out; None for "stored", whose share is what it is.
        scope: Of "delta" and "relative", what is compared with what; see `create_magnitude_mask`.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Returns:
        A `Mask`: True where a weight changed.

    Raises:
        TypeError: When before or after is of another type.
        ValueError: When names, shapes or dtypes differ, weights are sharded, `by`, sparsity or scope is not allowed,
            fewer weights changed than the sparsity keeps, or a change that is compared is not finite.

    Examples:
        >>> before = {"fc.weight": torch.tensor([[1.0, 2.0, 0.0, 4.0]])}
        >>> after = {"fc.weight": torch.tensor([[1.0, 2.5, -0.0, 3.0]])}
        >>> compute_change_mask(before, after)["fc.weight"].tolist()
        [[False, True, False, True]]
        >>> compute_change_mask(before, after, by="delta", sparsity=0.75)["fc.weight"].tolist()
        [[False, False, False, True]]
    """
    if by not in get_args(By):
        raise ValueError(f"by must be one of {', '.join(get_args(By))}, got {by!r}")
    if by == "stored" and (sparsity is not None or scope != "global"):
        raise ValueError('the weights that changed have a sparsity of their own; ask for the largest by="delta"')
    first, second = pair_weights(before, after, include, exclude)
    provenance: dict[str, object] = {"method": "change", "by": by}
    if by == "stored":
        bits = find_changed_bits(first, second)
    else:
        share = check_sparsity(sparsity, scope)
        bits = _find_largest(first, second, by, share, scope)
        provenance |= {"sparsity": share, "scope": scope}
    return describe_mask(bits, first, provenance, prunes=False)


def find_changed_bits(before: Weights, after: Weights) -> dict[str, Tensor]:
    """Returns by name packed bits: 1 where a weight changed."""
    none = torch.empty(0, dtype=torch.uint8)
    return {name: torch.cat([none, *parts]) for name, parts in _look_at_changed(before, after, pack_bits)}


def _look_at_changed(
    before: Weights, after: Weights, look: Callable[[Tensor], Seen]
) -> Iterator[tuple[str, list[Seen]]]:
    """Yields each name with what is seen of its blocks, 1-D bools that say where it changed."""

    def look_at(weight: Weight) -> list[Seen]:
        other = after[weight.name]
        return [
            look(is_changed(weight.read(*block), other.read(*block).to(weight.device)))
            for block in weight.cut(WEIGHTS_PER_BLOCK)
        ]

    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(before, pool.map(look_at, before.values()), strict=True)


def _find_largest(before: Weights, after: Weights, by: By, share: float | None, scope: str) -> dict[str, Tensor]:
    """Returns by name packed bits: 1 where a change is among the largest."""
    sizes = find_differences(before, after, SIZES[by])
    if scope == "global" and share is not None:
        # Counted, because their bits would take as much memory as the mask; what did not change is 0, the smallest.
        looked_at = _look_at_changed(before, after, lambda changed: int(changed.sum()))
        num_changed = sum(sum(counts) for _, counts in looked_at)
        num_kept = before.num_weights - round(share * before.num_weights)
        if num_kept > num_changed:
            raise ValueError(
                f"sparsity {share:g} keeps {num_kept} of the weights, but only {num_changed} changed as stored; ask "
                "for a higher sparsity"
            )
        return select_in_scope(sizes, share)
    try:
        return select_in_scope(sizes, share, scope=scope, within=find_changed_bits(before, after))
    except ValueError as error:
        error.add_note("These are changes, and `within` are the weights that changed as stored.")
        raise

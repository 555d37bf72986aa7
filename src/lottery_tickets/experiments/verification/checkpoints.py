"""What the states that a training left must be: of the same tensors as theta_k, finite, pruned, and not emptied."""

from collections.abc import Mapping

from torch import Tensor

from lottery_tickets.changes.differences import is_changed
from lottery_tickets.masks.mask import Mask


def find_odd_state(state: Mapping[str, Tensor], start: Mapping[str, Tensor], mask: Mask) -> str:
    """Returns in words what is wrong with a state; nothing when it may be that of a trained network.

    Args:
        state: Tensors by name.
        start: theta_k of the same replicate: same names, shapes and dtypes. Where it is not finite already, as a
            buffer may be, the state may be so too.
        mask: The weights that are kept.
    """
    kinds, expected = ({name: (t.shape, t.dtype) for name, t in tensors.items()} for tensors in (state, start))
    if odd := sorted(name for name in kinds.keys() | expected.keys() if kinds.get(name) != expected.get(name)):
        return f"{odd} are not there, or of another shape or dtype than in theta_k"
    for name, tensor in state.items():
        strange = ~tensor.isfinite()
        if name not in mask:
            strange &= start[name].isfinite()
        if num := int(strange.sum()):
            return f"{num} values of {name!r} are not finite"
    return ""


def find_returned(state: Mapping[str, Tensor], mask: Mask) -> str:
    """Returns in words which pruned weights of a state are not zero; nothing when all are."""
    for name in mask:
        returned = int((state[name][~mask[name]] != 0).sum())
        if returned:
            return f"{returned} pruned weights of {name!r} are not zero"
    return ""


def find_moved(state: Mapping[str, Tensor], start: Mapping[str, Tensor], mask: Mask) -> str:
    """Returns in words which weights of a state are not what they started from, outside the mask; nothing without."""
    for name in mask:
        if moved := int((is_changed(start[name].flatten(), state[name].flatten()) & ~mask[name].flatten()).sum()):
            return f"{moved} frozen weights of {name!r} are not those it started from"
    return ""


def find_emptied(state: Mapping[str, Tensor], start: Mapping[str, Tensor], mask: Mask) -> str:
    """Returns in words which weights were kept but are all zero, though theta_k has others; nothing when none are."""
    for name in mask:
        kept = mask[name]
        if kept.any() and not state[name][kept].any() and start[name][kept].any():
            return f"all kept weights of {name!r} are zero"
    return ""

"""One selector: scores in, the mask that keeps exactly n of them out. Every mask of a score is made here."""

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from lottery_tickets._core.checks import warn_caller
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import Mask, as_mask

logger = logging.getLogger(__name__)


def select_mask(
    scores: Weights,
    sparsity: float | None,
    *,
    scope: str,
    within: Mapping[str, Tensor] | None,
    provenance: Mapping[str, Any],
) -> Mask:
    """Returns the mask that keeps the scores of largest magnitude, with how it was made.

    Args:
        scores: Of each weight; any float dtype.
        sparsity: The share removed, from 0 to 1; None only for N:M.
        scope: What is compared with what, see `create_magnitude_mask`.
        within: An earlier mask; the result is a subset of it.
        provenance: What to write into the mask beside sparsity, scope and versions.

    Raises:
        TypeError: When a score or the sparsity is of another type.
        ValueError: When sparsity, scope, `within` or a score is out of range.

    Warns:
        UserWarning: When a layer loses all its weights.
    """
    share = check_sparsity(sparsity, scope)
    bits = select_in_scope(
        scores,
        share,
        scope=scope,
        within=None if within is None else _bits_for(scores, as_mask(within)),
    )
    return describe_mask(bits, scores, {**provenance, "sparsity": share, "scope": scope})


def describe_mask(
    bits: Mapping[str, Tensor], weights: Weights, provenance: Mapping[str, Any], *, prunes: bool = True
) -> Mask:
    """Returns packed bits of weights as a mask that says how it was made, and with which versions; logs it.

    Args:
        bits: By name.
        weights: That they are of.
        provenance: How they were found.
        prunes: Whether the mask is one to prune by, in which a layer without weights is a mistake.

    Warns:
        UserWarning: When it prunes, and a layer loses all its weights.
    """
    mask = Mask(bits, weights.shapes, {**provenance, **_versions()}, weights.shards)
    if prunes:
        _warn_of_collapse(mask)
    logger.info(
        "%s mask, scope %s: %d of %d weights removed, in %d parameters: %s",
        provenance.get("method", "score"),
        provenance.get("scope", "global"),
        mask.num_weights - mask.num_kept,
        mask.num_weights,
        len(weights),
        ", ".join(weights),
    )
    return mask


def order_scores(scores: Mapping[str, object], output_dims: Mapping[str, tuple[int, ...]] | None = None) -> Weights:
    """Returns scores whose magnitudes sort as the given scores do, signs included; themselves when none is negative.

    Args:
        scores: By parameter name.
        output_dims: As in `Weights.from_tensors`.

    Raises:
        TypeError: When a score is not a float tensor.
        ValueError: When scores of both signs are not finite, or are float64.
    """
    tensors: dict[str, Tensor] = {}
    for name, score in scores.items():
        if not isinstance(score, Tensor) or not score.is_floating_point():
            got = score.dtype if isinstance(score, Tensor) else type(score).__name__
            raise TypeError(f"the scores of {name!r} must be a float tensor, got {got}")
        tensors[name] = score.detach()
    if not tensors:
        raise ValueError("importance must hold the scores of at least one weight, got none; was the model empty?")
    weights = Weights.from_tensors(tensors, output_dims)
    together = weights.together
    local = {name: see_local(score) for name, score in tensors.items()}
    if not any(together.gather(lambda: any(bool((score < 0).any()) for score in local.values()))):
        return weights
    return weights.with_values(together.agree(lambda: {name: _order_of(name, score) for name, score in local.items()}))


def _order_of(name: str, score: Tensor) -> Tensor:
    """Returns each float32's place in the order of all float32 numbers, as a float64, which holds it exactly."""
    if not bool(score.isfinite().all()):
        raise ValueError(f"scores must be finite, but {name!r} has NaN or infinity; how were they computed?")
    if score.dtype == torch.float64:
        raise ValueError(
            f"scores of both signs must be float32 or narrower, but {name!r} is float64; cast it by .float()"
        )
    patterns = (score.float() + 0.0).view(torch.int32).to(torch.int64)  # + 0.0 makes one zero of two
    return torch.where(patterns >= 0, patterns + 2**31, -1 - (patterns & (2**31 - 1)) + 2**31).double()


def _bits_for(scores: Weights, mask: Mask) -> dict[str, Tensor]:
    """Returns the packed bits of a mask for these weights, which it must cover."""
    for name, score in scores.items():
        if name not in mask.shapes:
            raise ValueError(
                f"`within` must cover every weight, but {name!r} is missing; was it made for another model?"
            )
        if mask.shapes[name] != score.whole_shape:
            raise ValueError(
                f"mask for {name!r} has shape {tuple(mask.shapes[name])}, but the parameter has shape "
                f"{tuple(score.whole_shape)}; was it made for another model?"
            )
    if unknown := sorted(mask.shapes.keys() - scores.keys()):
        raise ValueError(f"`within` must hold masks of the weights only, got {unknown}; was it made for another model?")
    bits = mask.bits_for(scores.shards)
    return {name: bits[name] for name in scores}


def _warn_of_collapse(mask: Mask) -> None:
    if mask.num_kept and mask.collapsed_layers:
        names = ", ".join(mask.collapsed_layers)
        message = (
            f"layer collapse: nothing is kept of {names}; ask for less sparsity, or scope 'layer', 'erk' or 'lamp'"
        )
        warn_caller(message)


@cache
def _versions() -> dict[str, str]:
    try:
        own = version("lottery-tickets")
    except PackageNotFoundError:
        own = "unknown"
    return {"lottery_tickets": own, "torch": str(torch.__version__)}

"""Magnitudes to masks: what has a small magnitude is removed, exactly as many weights as asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypedDict

import torch
from torch import Tensor, nn

from lottery_tickets._core.bits import num_bytes, unpack_bits
from lottery_tickets._core.notebooks import show_own
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.records import recorded
from lottery_tickets._core.weights import Weight, Weights, WeightSource
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import select_mask

__dir__ = show_own(__name__)

WEIGHTS_PER_BLOCK: Final = 1 << 20  # a multiple of 8


class MagnitudeTicket(TypedDict):
    """What `compute_layerwise_magnitude_ticket` returns; thresholds are None where a layer keeps nothing."""

    mask: Mask
    actual_sparsity: float
    layer_sparsities: dict[str, float]
    thresholds: dict[str, float | None]
    collapsed_layers: list[str]


def create_magnitude_mask(
    model: nn.Module | Mapping[str, Tensor] | WeightSource,
    sparsity: float | None,
    *,
    scope: str = "global",
    within: Mapping[str, Tensor] | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> Mask:
    """Returns the mask that keeps the weights of largest magnitude and removes exactly round(sparsity * n) of n.

    Magnitudes are compared exactly, whatever their dtype; of equal ones those at earlier positions are kept (first
    parameter first, then C order). So the mask is the same on every machine. The model is left as it is. Extra memory:
    the mask, one bit a weight, and a few megabytes (`row`, N:M: two bytes a weight of one layer; `lamp`: 16 bytes a
    weight).

    Args:
        model: A model, a mapping of weights by name such as a state dict, or a `CheckpointWeights`.
        sparsity: The share of all weights that is removed, from 0 to 1; also where `within` has removed some before.
            None only for N:M, whose share is 1 - N/M.
        scope: What is compared with what: "global" (all weights), "layer" (the same share of each layer), "row" (of
            each output), "erk" and "lamp" (each layer its own share), or "N:M" such as "2:4" (N kept of each M
            neighbours along the inputs).
        within: An earlier mask. Only its survivors are ranked, and the result is a subset of it.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Returns:
        A `Mask` over the chosen weights, with method, sparsity, scope and versions as provenance.

    Raises:
        TypeError: When the model or the sparsity is of another type.
        ValueError: When the sparsity is out of range or cannot be reached within the earlier mask, the scope is
            unknown, N:M does not divide a layer's inputs, a weight is NaN or infinite, a pattern matches nothing, or
            `within` is of another model.

    Warns:
        UserWarning: When a layer loses all its weights, so that nothing passes it (layer collapse).

    References:
        Han et al., arXiv:1506.02626 (magnitudes); Evci et al., arXiv:1911.11134 (ERK); Lee et al., arXiv:2010.07611
        (LAMP); Sun et al., arXiv:2306.11695 (rows).

    Examples:
        >>> model = torch.nn.Linear(4, 1, bias=False)
        >>> model.load_state_dict({"weight": torch.tensor([[0.1, -3.0, 2.0, 0.2]])})
        <All keys matched successfully>
        >>> create_magnitude_mask(model, 0.5)["weight"].tolist()
        [[False, True, True, False]]
    """
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    return select_mask(
        weights,
        sparsity,
        scope=scope,
        within=within,
        provenance={"method": "magnitude"},
    )


@recorded("ticket")
def compute_layerwise_magnitude_ticket(
    model: nn.Module | Mapping[str, Tensor] | WeightSource,
    target_sparsity: float = 0.9,
    use_global_ranking: bool = True,  # noqa: FBT001, FBT002 - promised by position, tests/test_contract.py
    *,
    within: Mapping[str, Tensor] | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> MagnitudeTicket:
    """Returns a magnitude mask with each layer's sparsity and threshold.

    Args:
        model: A model, a mapping of weights by name, or a `CheckpointWeights`.
        target_sparsity: The share of all weights that is removed, from 0 to 1.
        use_global_ranking: Whether all weights are compared with each other; if not, the same share of each layer goes.
        within: An earlier mask; only its survivors are ranked.
        include: Replaces the default choice of weights.
        exclude: Removes from the choice.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        `mask`, the `Mask`; `actual_sparsity`, its sparsity; `layer_sparsities` by parameter name; `thresholds`, by name
        the least magnitude that the layer keeps, None where it keeps nothing; `collapsed_layers`, the names of those.

    Raises:
        TypeError: As `create_magnitude_mask`.
        ValueError: As `create_magnitude_mask`.

    Warns:
        UserWarning: When a layer loses all its weights.

    Examples:
        >>> weights = {"a.weight": torch.tensor([[1.0, 2.0]]), "b.weight": torch.tensor([[3.0, 4.0]])}
        >>> ticket = compute_layerwise_magnitude_ticket(weights, 0.5, use_global_ranking=False)
        >>> ticket["layer_sparsities"], ticket["thresholds"]
        ({'a.weight': 0.5, 'b.weight': 0.5}, {'a.weight': 2.0, 'b.weight': 4.0})
    """
    scope = "global" if use_global_ranking else "layer"
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    mask = select_mask(weights, target_sparsity, scope=scope, within=within, provenance={"method": "magnitude"})
    return {
        "mask": mask,
        "actual_sparsity": mask.sparsity,
        "layer_sparsities": mask.layer_sparsity(),
        "thresholds": _find_thresholds(weights, mask),
        "collapsed_layers": mask.collapsed_layers,
    }


def _find_thresholds(weights: Weights, mask: Mask) -> dict[str, float | None]:
    """Returns the least magnitude that each layer keeps, over all processes."""
    here = {name: _find_least_kept(weight, mask.bits[name]) for name, weight in weights.items()}
    parts = weights.together.gather(lambda: here)
    kept = {name: [least for part in parts if (least := part[name]) is not None] for name in here}
    return {name: min(found, default=None) for name, found in kept.items()}


def _find_least_kept(weight: Weight, bits: Tensor) -> float | None:
    """Returns the least magnitude that is kept, found block by block."""
    found = []
    for start, stop in weight.cut(WEIGHTS_PER_BLOCK):
        values = weight.read(start, stop)
        kept = values[unpack_bits(bits[start // 8 : num_bytes(stop)], values.shape).to(values.device)]
        found += [float(kept.to(torch.float64).abs().min())] if len(kept) else []
    return min(found, default=None)

"""What several trainings changed of one model, each by itself, and what their changes have in common beyond chance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict

from torch import nn

from lottery_tickets._core.prunable_weights import Choices
from lottery_tickets._core.records import recorded
from lottery_tickets._core.weights import WeightSource
from lottery_tickets.changes.change_mask import By, compute_change_mask
from lottery_tickets.changes.differences import AnyWeights, pair_weights
from lottery_tickets.changes.statistics import ChangeStatistics, describe_changes
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.nulls import ERROR_RATE
from lottery_tickets.masks.overlap import OverlapMatrix, compute_overlap_matrix
from lottery_tickets.masks.selector import describe_mask

WEIGHTS: Final = (nn.Module, Mapping, WeightSource)


class Changes(TypedDict):
    """What `compute_changes` returns.

    Attributes:
        by: Which changes the masks keep, as in `compute_change_mask`.
        updates: What each training changed, in figures, by its name.
        masks: The mask of its changes, by its name.
        overlaps: What the masks of each pair have in common, given the weights before; None where there is one.
    """

    by: By
    updates: dict[str, ChangeStatistics]
    masks: dict[str, Mask]
    overlaps: OverlapMatrix | None


@recorded("changes")
def compute_changes(
    before: AnyWeights,
    after: Mapping[str, AnyWeights] | Sequence[AnyWeights],
    *,
    by: By = "stored",
    sparsity: float | None = None,
    scope: str = "global",
    include: Choices | None = None,
    exclude: Choices | None = None,
    error_rate: float = ERROR_RATE,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Changes:
    """Returns what trainings of one model changed, and what their changes have in common beyond chance.

    Args:
        before: The weights that all began from: a model, a mapping by name, or a `CheckpointWeights`.
        after: What they became, by a name for each training, or in a list, whose trainings are called "0", "1" and so
            on.
        by: Which changes the masks keep, as in `compute_change_mask`; figures are of all changes.
        sparsity: Likewise.
        scope: Likewise.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        error_rate: As in `compute_overlap_matrix`.
        path: A JSON file that the results also go to, masks beside it, or a folder for them; see `save_results`.

    Raises:
        TypeError: When weights before or after are of another type.
        ValueError: When there is nothing after, or as `compute_change_mask`, `compute_change_statistics` and
            `compute_ticket_overlap`.

    Examples:
        >>> import torch
        >>> before = {"fc.weight": torch.zeros(8, 8)}
        >>> found = compute_changes(before, {"a": {"fc.weight": torch.eye(8)}, "b": {"fc.weight": torch.ones(8, 8)}})
        >>> [update["overall"]["share_changed"] for update in found["updates"].values()]
        [0.125, 1.0]
        >>> found["overlaps"]["pairs"][0]["verdict"]
        'at chance'
    """
    named = _name(after)
    if not named:
        raise ValueError("there must be weights after to compare with those before, got none; name them or list them")
    updates: dict[str, ChangeStatistics] = {}
    masks: dict[str, Mask] = {}
    for name, weights in named.items():
        first, second = pair_weights(before, weights, include, exclude)
        updates[name], bits = describe_changes(first, second)
        if by == "stored" and sparsity is None and scope == "global":
            masks[name] = describe_mask(bits, first, {"method": "change", "by": by}, prunes=False)
        else:
            masks[name] = compute_change_mask(
                before, weights, by=by, sparsity=sparsity, scope=scope, include=include, exclude=exclude
            )
    overlaps = compute_overlap_matrix(masks, given=before, error_rate=error_rate) if len(masks) > 1 else None
    return {"by": by, "updates": updates, "masks": masks, "overlaps": overlaps}


def _name(after: object) -> dict[str, AnyWeights]:
    """Returns the weights after each training by its name.

    Raises:
        TypeError: When they are those of one training alone.
    """
    listed = {str(place): one for place, one in enumerate(after)} if isinstance(after, Sequence) else after
    if not isinstance(listed, Mapping) or not all(isinstance(one, WEIGHTS) for one in listed.values()):
        raise TypeError(
            "after must be the weights of each training, by a name for it or in a list, but is something else; of one "
            'training pass {"name": weights}'
        )
    return dict(listed)

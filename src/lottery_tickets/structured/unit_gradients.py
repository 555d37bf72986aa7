"""Scores of units from data: what the loss of each sample says of a unit as a whole.

All weights that read a unit are scaled by one number, its gate, which is 1; at 0 the unit has gone. So the derivative
of a sample's loss by the gate, the sum over these weights of w * dL_n / dw, is what removing the unit does to first
order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.samples import cut_batches, move_batch, require_samples, take_samples
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.measuring.performance import measuring
from lottery_tickets._core.measuring.running import Slots, differentiate
from lottery_tickets._core.names import clean_name
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets.structured.units import NOBODY, UnitGroup

TAYLOR: Final = "taylor"
FISHER: Final = "fisher"
NAMES: Final = (TAYLOR, FISHER)


def score_by_gradients(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    score: str,
    dataloader: Iterable[Any],
    num_samples: int,
    *,
    loss_fn: LossFunction | None,
    seed: int,
) -> dict[str, Tensor]:
    """Returns for each group by name the scores of its units, 1-D float64.

    Args:
        model: The model; it comes back as it was.
        groups: Of it.
        score: "taylor", the mean over samples n of |dL_n / dgate|, or "fisher", half the mean of its square.
        dataloader: Batches, run one sample at a time.
        num_samples: How many samples are used, at most.
        loss_fn: As in `compute_fisher_importance`.
        seed: Of a loader that shuffles.

    Raises:
        TypeError: When the model refuses a batch.
        ValueError: When there is no sample, or a gradient is not finite.
    """
    num_samples = check_count("num_samples", num_samples)
    weights = {clean_name(name): parameter for name, parameter in model.named_parameters()}
    readers = _list_readers(groups, weights)
    slots, device = Slots(model, readers), next(iter(weights.values())).device
    sums = {group.name: torch.zeros(group.num_units, dtype=torch.float64) for group in groups}
    num_seen = 0
    with measuring(model, dataloader, seed), torch.enable_grad():
        for sample in _list_samples(dataloader, num_samples):
            moved = move_batch(sample, device)
            gates = {name: torch.ones_like(total, device=device, requires_grad=True) for name, total in sums.items()}
            scaled = {name: _scale(weights[name].detach(), places, gates) for name, places in readers.items()}
            loss = slots.run_with(scaled, partial(compute_loss, batch=moved, loss_fn=loss_fn))
            for name, gradient in differentiate(loss, gates).items():
                size = gradient.detach().cpu().double().abs()
                sums[name] += size if score == TAYLOR else 0.5 * size.square()
            num_seen += 1
    if not num_seen:
        raise ValueError("the dataloader must give at least one sample to score units on, got none; is it empty?")
    if odd := [name for name, total in sums.items() if not bool(total.isfinite().all())]:
        raise ValueError(
            f"gradients must be finite, but those of units of {odd[0]!r} are not; look for NaN in the data"
        )
    return {name: total / num_seen for name, total in sums.items()}


Places = list[tuple[str, int, Tensor]]  # of a weight: group, dimension, the unit of each index


def _list_readers(groups: Sequence[UnitGroup], weights: Mapping[str, Tensor]) -> dict[str, Places]:
    """Returns for each weight that reads units where they lie in it."""
    found: dict[str, Places] = {}
    for group in groups:
        for member in group.members:
            if member.is_outgoing and member.name in weights:
                owners = member.owners.to(weights[member.name].device)
                found.setdefault(member.name, []).append((group.name, member.dim, owners))
    return found


def _scale(weight: Tensor, places: Places, gates: Mapping[str, Tensor]) -> Tensor:
    for name, dim, owners in places:
        factors = torch.where(owners == NOBODY, 1.0, gates[name][owners.clamp_min(0)])
        shape = [-1 if place == dim else 1 for place in range(weight.ndim)]
        weight = weight * factors.to(weight.dtype).view(shape)
    return weight


def _list_samples(dataloader: Iterable[Any], num_samples: int) -> Iterator[Any]:
    for batch, size in cut_batches(dataloader, num_samples):
        whole = require_samples(batch)
        yield from (take_samples(batch, start, start + 1) if whole > 1 else batch for start in range(size))

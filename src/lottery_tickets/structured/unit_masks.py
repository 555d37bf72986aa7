"""Masks of whole units: the one selector over scores of units, with at least one of each group kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from torch import Tensor, nn

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.selection.largest import Ranking, select_largest
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import order_scores
from lottery_tickets.structured.finding import find_units
from lottery_tickets.structured.unit_gradients import NAMES as DATA_NAMES
from lottery_tickets.structured.unit_gradients import score_by_gradients
from lottery_tickets.structured.unit_scores import score_units
from lottery_tickets.structured.units import UnitGroup, prune_units

SCOPES: Final = ("layer", "global")
NUM_SAMPLES: Final = 256


def create_unit_mask(
    model: nn.Module,
    sparsity: float | Mapping[str, int],
    *,
    units: str = "channels",
    scores: str | Mapping[str, Tensor] = "norm",
    scope: str = "layer",
    multiple_of: int = 1,
    example_inputs: object = None,
    dataloader: Iterable[Any] | None = None,
    num_samples: int = NUM_SAMPLES,
    loss_fn: LossFunction | None = None,
    seed: int = 42,
) -> Mask:
    """Returns a mask that prunes whole units with all that belongs to them, so that `shrink` can make them go.

    It prunes exactly round(sparsity * n) of n units: those of least score, of equal ones those at later positions. All
    parameters of a unit are pruned, biases and scales of norms too, and all weights that read it. At least one unit of
    each group stays, and of experts as many as a token is sent to.

    Under `masked` and `hold_mask` the model computes what the shrunk one computes, but for experts: a router cannot be
    told by weights that are zero never to choose one, so the masked model still sends tokens to experts that give
    nothing. The shrunk model chooses among those that stay, as if the others' entries of the router were -inf.

    Args:
        model: A model; it stays as it is.
        sparsity: The share of units that is removed, from 0 to below 1; or for each group by name how many units stay,
            such as `mask.provenance["kept"]` of another mask: with scores "random" that is its shuffled control.
        units: "channels" of convolutions, hidden "neurons", "kv_groups" (key/value heads with their query heads),
            "experts" or whole "layers"; see `find_units`.
        scores: "norm": the L2 norm of all weights that make the unit, over all layers that do. "batch_norm_scale": the
            mean |scale| of its batch norms. "random". "taylor": what removing the unit does to the loss, to first
            order, the mean over samples n of |sum of w * dL_n / dw| over all weights that read it. "fisher": the same
            to second order by the Fisher information, half the mean of that sum's square. Both need `dataloader`. Or a
            mapping by parameter name, such as an `Importance`: the sum over the weights that make the unit, as if each
            went by itself; of `compute_taylor_importance(..., granularity="unit")`, which has one number an output,
            the sum over outputs. Or a mapping by group name of one score a unit.
        scope: "layer" removes the same share of each group, "global" compares all units. Norms of groups with other
            numbers of inputs are hard to compare.
        multiple_of: How many units stay of a group is a multiple of this, unless all do. As many go as whole blocks
            allow, at most `round(sparsity * n)`; a block goes by its best unit.
        example_inputs: What a network that is not of transformers is called with; see `find_units`.
        dataloader: Batches for "taylor" and "fisher", as for `compute_fisher_importance`; run one sample at a time.
        num_samples: How many samples of it are used, at most.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        seed: Of random scores, and of a loader that shuffles.

    Returns:
        A `Mask` over the parameters of these units; its provenance has the kind and for each group how many stay.

    Raises:
        ModuleNotFoundError: When Torch-Pruning is needed and not installed.
        TypeError: When an argument is of another type.
        ValueError: When the model has no such units, a group would be emptied, scores need data and have none, or an
            argument is out of range.

    References:
        Li et al., arXiv:1608.08710 (norms of filters); Liu et al., arXiv:1708.06519 (scales of batch norms); Molchanov
        et al., arXiv:1906.10771 (Taylor, gates); Theis et al., arXiv:1801.05787 (Fisher information of channels).

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.tensor([[1.0, 1.0], [0.1, 0.1], [2.0, 2.0]]))
        >>> mask = create_unit_mask(model, 1 / 3, units="neurons", example_inputs=torch.ones(1, 2))
        >>> mask["0.bias"].tolist(), mask["2.weight"].tolist(), mask.provenance["kept"]
        ([True, False, True], [[True, False, True]], {'0': 2})
    """
    if not isinstance(scores, str | Mapping):
        raise TypeError(f"scores must be a name or a mapping of tensors by name, got {type(scores).__name__}")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(map(repr, SCOPES))}, got {scope!r}")
    if (scores in DATA_NAMES) != (dataloader is not None):
        raise ValueError(
            f"scores {', '.join(map(repr, DATA_NAMES))} need a dataloader, and others take none, got "
            f"{scores if isinstance(scores, str) else type(scores).__name__!r} with "
            f"{'none' if dataloader is None else 'one'}"
        )
    multiple = check_count("multiple_of", multiple_of)
    inner, found = unwrap(model), find_units(model, example_inputs)
    groups = found.of_kind(units)
    if dataloader is None:
        scored = score_units(inner, groups, scores, seed)
    else:
        scored = score_by_gradients(inner, groups, str(scores), dataloader, num_samples, loss_fn=loss_fn, seed=seed)
    counts, kept = _choose(groups, scored, sparsity, scope, multiple)
    shapes = {clean_name(name): parameter.shape for name, parameter in inner.named_parameters()}
    provenance = {
        "method": "units",
        "units": units,
        "scores": scores if isinstance(scores, str) else type(scores).__name__,
        "sparsity": None if isinstance(sparsity, Mapping) else float(sparsity),
        "scope": scope,
        "multiple_of": multiple,
        "seed": seed if scores == "random" else None,
        "num_samples": None if dataloader is None else num_samples,
        "kept": counts,
        "num_units": {group.name: group.num_units for group in groups},
        "left_out": dict(found.left_out),
    }
    return Mask.from_tensors(prune_units(groups, kept, shapes), provenance)


def _choose(
    groups: Sequence[UnitGroup],
    scored: Mapping[str, Tensor],
    sparsity: float | Mapping[str, int],
    scope: str,
    multiple_of: int,
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Returns how many units stay of each group, and which; arguments as for `create_unit_mask`."""
    ordered = order_scores({name: score.cpu() for name, score in scored.items()})
    if isinstance(sparsity, Mapping):
        counts = _check_counts(groups, sparsity)
    else:
        share = check_sparsity(sparsity, "global")
        parts = [groups] if scope == "global" else [[group] for group in groups]
        counts = {}
        for part in parts:
            counts |= _count_kept(part, ordered, share, multiple_of)
    return counts, {
        name: unpack_bits(select_largest(ordered.part([name]), counts[name])[name], weight.shape)
        for name, weight in ordered.items()
    }


def _check_counts(groups: Sequence[UnitGroup], counts: Mapping[str, int]) -> dict[str, int]:
    """Returns how many units stay of each group, as it is told."""
    names = [group.name for group in groups]
    if set(counts) != set(names):
        odd = sorted(set(counts) ^ set(names))
        raise ValueError(
            f"the numbers of units that stay must be for the groups of the model, but {odd} stand on one side only; "
            "were they of another model?"
        )
    for group in groups:
        if not group.least <= counts[group.name] <= group.num_units:
            raise ValueError(
                f"from {group.least} to {group.num_units} units of {group.name!r} can stay, got {counts[group.name]}"
            )
    return {name: int(counts[name]) for name in names}


@final
@dataclass(frozen=True)
class _Blocks:
    """The units of a group from the best to the worst, in blocks of which the first ones must stay."""

    num_units: int
    size: int
    num_fixed: int

    def count_units(self, num_blocks: int) -> int:
        """Returns how many units stay with so many blocks beside those that must."""
        return min(self.num_units, (self.num_fixed + num_blocks) * self.size)


def _count_kept(groups: Sequence[UnitGroup], scores: Weights, share: float, multiple: int) -> dict[str, int]:
    """Returns how many units of each group stay when all are compared.

    Raises:
        ValueError: When that would empty a group.
    """
    blocks = {group.name: _Blocks(group.num_units, multiple, -(-group.least // multiple)) for group in groups}
    best = {
        group.name: scores[group.name].tensor.double().sort(descending=True, stable=True).values[::multiple]
        for group in groups
    }
    free = Weights.from_tensors({name: values[blocks[name].num_fixed :] for name, values in best.items()})
    num_units = sum(group.num_units for group in groups)
    num_removed = round(share * num_units)
    most = num_units - sum(group.least for group in groups)
    if num_removed > most:
        names = ", ".join(group.name for group in groups[:5]) + (" and others" if len(groups) > 5 else "")  # noqa: PLR2004 - a few
        raise ValueError(
            f"sparsity {share:g} removes {num_removed} of {num_units} units, but at most {most} can go, because of "
            f"each group some must stay ({names}); ask for less"
        )
    ranking = Ranking(free)

    def count(num_blocks: int) -> dict[str, int]:
        bits = ranking.keep(num_blocks)
        return {
            name: blocks[name].count_units(int(unpack_bits(bits[name], weight.shape).sum()))
            for name, weight in free.items()
        }

    low, high = 0, free.num_weights  # the fewest blocks with which no more units go than should
    while low < high:
        middle = (low + high) // 2
        if num_units - sum(count(middle).values()) <= num_removed:
            high = middle
        else:
            low = middle + 1
    return count(low)

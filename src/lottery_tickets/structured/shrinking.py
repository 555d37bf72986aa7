"""From a model and a mask to a smaller model that computes the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.states import view_clean_state
from lottery_tickets.masks.fitting import find_masked_parameters
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.structured.calling import call, compare_outputs
from lottery_tickets.structured.configurations import build_smaller, change_configuration
from lottery_tickets.structured.cutting import Cuts, cut_modules, find_aliases, find_cuts
from lottery_tickets.structured.decoders import find_model_type
from lottery_tickets.structured.finding import find_units
from lottery_tickets.structured.sizes import ModelSize, measure_size
from lottery_tickets.structured.units import UnitGroup, find_unread


class UnitCounts(TypedDict):
    """How many units a group has.

    Attributes:
        kind: Of the units.
        before: In the model.
        after: In the smaller one; 0 where the group went with its layer.
        unread: Of these, those that nothing reads, and that stay because some must or because widths must be even.
    """

    kind: str
    before: int
    after: int
    unread: int


class ShrinkReport(TypedDict):
    """What shrinking a model did; JSON-able.

    Attributes:
        before: The model.
        after: The smaller one.
        units: For each group by name.
        num_zeros: Weights that are pruned and stay, as zeros.
        difference: Largest difference of outputs at the example inputs between the smaller and the masked model,
            relative to the largest output; None without example inputs, and where experts went, to which the masked
            model still sends tokens.
        left_out: What looks like a group of units and is none, by name, with the reason.
    """

    before: ModelSize
    after: ModelSize
    units: dict[str, UnitCounts]
    num_zeros: int
    difference: float | None
    left_out: dict[str, str]


@final
@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model.

    Attributes:
        model: Of ordinary layers; of transformers' models of the same class. It shares no memory with the larger one.
        report: What went.
        cuts: What stayed of each tensor.
    """

    model: nn.Module
    report: ShrinkReport
    cuts: Cuts

    def cut_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns a state of the larger model, such as its starting weights, as a state of the smaller one.

        Args:
            state: By name; not masked by this.

        Examples:
            >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
            >>> mask = {"2.weight": torch.tensor([[True, False, True]])}
            >>> shrunk = shrink(model, mask, example_inputs=torch.ones(1, 2))
            >>> shrunk.cut_state(model.state_dict())["0.weight"].shape
            torch.Size([2, 2])
        """
        return self.cuts.cut_state(state)


def shrink(
    model: nn.Module, mask: Mapping[str, Tensor], *, uniform: bool = False, example_inputs: object = None
) -> Shrunk:
    """Returns a smaller model that computes what the masked model computes, and a report.

    A unit goes when the mask prunes all weights that read it: whatever it computes reaches nobody. So any mask can be
    shrunk; one of whole units (`create_unit_mask`) loses these, another one loses what it emptied by chance. Pruned
    weights of units that stay are zeros in the smaller model; hold the cut mask there if they should stay zero. An
    expert goes when the weights that read it and its row of the router are pruned; the smaller model then chooses
    among the others.

    A model of transformers comes back as its own class with a changed configuration, so `save_pretrained`,
    `from_pretrained` and `generate` work. A configuration has one width for all layers: where the mask leaves others,
    the model is refused unless `uniform`.

    Args:
        model: A model, for instance with its starting weights; it stays as it is.
        mask: By parameter name, True where a weight is kept.
        uniform: Whether layers of a model of transformers are evened out upwards: the widest decides, and units that
            stay only for that are zero, so the function is the same.
        example_inputs: What the model is called with: a tensor, a tuple or list of arguments, or a dict of named ones.
            Needed for networks that are not of transformers; gives FLOPs and the difference of outputs.

    Returns:
        A `Shrunk`: `model`, the smaller one; `report`; and `cut_state` for other states of the model.

    Raises:
        ModuleNotFoundError: When Torch-Pruning is needed and not installed.
        TypeError: When an argument is of another type.
        ValueError: When the mask is of another model, the units of the model cannot be found, or a configuration
            cannot say what is left.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> mask = {"2.weight": torch.tensor([[True, False, True]])}
        >>> shrunk = shrink(model, mask, example_inputs=torch.ones(1, 2))
        >>> shrunk.model
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=1, bias=True)
        )
        >>> shrunk.report["units"], shrunk.report["difference"] < 1e-6
        ({'0': {'kind': 'neurons', 'before': 3, 'after': 2, 'unread': 0}}, True)
    """
    found = find_units(model, example_inputs)
    inner, checked = unwrap(model), as_mask(mask)
    find_masked_parameters(inner, checked)
    weights = _unpack(inner, checked)
    groups = list(found.groups.values())
    unread = {group.name: find_unread(group, weights) for group in groups}
    kept = {group.name: ~_spare(unread[group.name], group.least) for group in groups}
    gone = _list_gone(groups, kept)
    alive = [group for group in groups if not group.name.startswith(gone)]
    _check_experts(alive, unread)
    widths = _even_out(alive, kept, uniform=uniform)
    cuts = find_cuts(alive, kept, inner)
    state, num_zeros = _cut_masked(inner, weights, cuts)
    if find_model_type(inner) is None:
        smaller = cut_modules(inner, state, cuts)
    else:
        config = getattr(inner, "config", None)
        layers = cuts.layers if cuts.path else range(int(getattr(config, "num_hidden_layers", 0)))
        frozen = {cuts.rename(name) for name, parameter in inner.named_parameters() if not parameter.requires_grad}
        smaller = build_smaller(inner, change_configuration(config, widths, layers), state, frozen)
    lose_experts = any(group.kind == "experts" and not kept[group.name].all() for group in alive)
    report: ShrinkReport = {
        "before": measure_size(inner, example_inputs),
        "after": measure_size(smaller, example_inputs),
        "units": _count_units(groups, gone, kept, unread),
        "num_zeros": num_zeros,
        "difference": (
            None if example_inputs is None or lose_experts else _compare(inner, smaller, checked, example_inputs)
        ),
        "left_out": dict(found.left_out),
    }
    return Shrunk(smaller, report, cuts)


def _unpack(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """Returns which weights are kept, by the first name of each parameter."""
    aliases = find_aliases(model)
    weights: dict[str, Tensor] = {}
    for name, kept in mask.items():
        first = aliases[name]
        weights[first] = kept & weights.get(first, kept)
    return weights


def _spare(unread: Tensor, least: int) -> Tensor:
    """Returns which units go when so many must stay: of those that nothing reads the first ones are spared."""
    num_spared = max(0, least - int((~unread).sum()))
    goes = unread.clone()
    goes[unread.nonzero().flatten()[:num_spared]] = False
    return goes


def _list_gone(groups: list[UnitGroup], kept: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Returns how the names of what lies in layers that go begin."""
    return tuple(
        f"{group.name}.{place}."
        for group in groups
        if group.kind == "layers"
        for place in (~kept[group.name]).nonzero().flatten().tolist()
    )


def _count_units(
    groups: list[UnitGroup], gone: tuple[str, ...], kept: Mapping[str, Tensor], unread: Mapping[str, Tensor]
) -> dict[str, UnitCounts]:
    counts: dict[str, UnitCounts] = {}
    for group in groups:
        stays = kept[group.name] & (not group.name.startswith(gone))
        counts[group.name] = {
            "kind": group.kind,
            "before": group.num_units,
            "after": int(stays.sum()),
            "unread": int((stays & unread[group.name]).sum()),
        }
    return counts


def _check_experts(groups: list[UnitGroup], unread: Mapping[str, Tensor]) -> None:
    """Raises a ValueError where experts that are pruned would have to stay, to which a router would send tokens."""
    groups = [group for group in groups if group.kind == "experts"]
    counts = {group.name: int((~unread[group.name]).sum()) for group in groups}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"as many experts must stay in each layer, but the mask leaves {counts}; prune with scope='layer'"
        )
    for group in groups:
        if counts[group.name] < group.least:
            raise ValueError(
                f"at least {group.least} experts of {group.name!r} must stay, to which a token is sent, but the mask "
                f"leaves {counts[group.name]}"
            )


def _even_out(groups: list[UnitGroup], kept: dict[str, Tensor], *, uniform: bool) -> dict[str, int]:
    """Returns the entries of a configuration that change, after as many units stay in each layer.

    Args:
        groups: Those that are left.
        kept: Which units stay; widened where `uniform`.
        uniform: Whether it may be.

    Raises:
        ValueError: When layers differ, and may not be widened.
    """
    widths: dict[str, int] = {}
    for setting in dict.fromkeys(group.setting for group in groups if group.setting and group.kind != "layers"):
        alike = [group for group in groups if group.setting == setting]
        counts = {group.name: int(kept[group.name].sum()) for group in alike}
        width = max(counts.values())
        if min(counts.values()) < width and not uniform:
            few = min(counts, key=lambda name: counts[name])
            raise ValueError(
                f"{setting} of a configuration of transformers is one number for all layers, but {counts[few]} units "
                f"stay in {few!r} and {width} elsewhere; make the mask with scope='layer', or pass uniform=True to "
                f"keep {width} in each"
            )
        for group in alike:
            kept[group.name] = ~_spare(~kept[group.name], width)
        if any(width < group.num_units for group in alike):
            widths[setting] = width
    return widths


def _cut_masked(model: nn.Module, weights: Mapping[str, Tensor], cuts: Cuts) -> tuple[dict[str, Tensor], int]:
    """Returns the state of the smaller model, with zeros where weights are pruned, and how many these are.

    Tensors of several names are one tensor here too.
    """
    made: dict[str, Tensor] = {}
    state: dict[str, Tensor] = {}
    num_zeros = 0
    for name, tensor in view_clean_state(model).items():
        first, renamed = cuts.aliases.get(name, name), cuts.rename(name)
        if renamed is None:
            continue
        if first not in made:
            cut = cuts.cut(name, tensor.detach())
            kept = cuts.cut(name, weights[first]).to(tensor.device) if first in weights else None
            made[first] = cut.clone() if kept is None else cut.where(kept, 0)
            num_zeros += 0 if kept is None else int((~kept).sum())
        state[renamed] = made[first]
    return state, num_zeros


def _compare(model: nn.Module, smaller: nn.Module, mask: Mask, example_inputs: object) -> float:
    with evaluating(model), evaluating(smaller), torch.no_grad(), masked(model, mask):
        return compare_outputs(call(smaller, example_inputs), call(model, example_inputs))

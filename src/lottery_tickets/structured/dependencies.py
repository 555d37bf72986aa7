"""The door to Torch-Pruning: its dependency graph finds the units of networks of ordinary layers, of any graph.

Nothing is trusted: a copy with half of the units gone must compute what the masked network computes, else a group is
left out.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree

from lottery_tickets._core.checks import needing_extra
from lottery_tickets._core.determinism import make_generator, seeded
from lottery_tickets._core.names import clean_name
from lottery_tickets.masks.holding import masked, remove_mask
from lottery_tickets.structured.calling import call, compare_outputs, list_outputs
from lottery_tickets.structured.cutting import cut_modules, find_aliases, find_cuts, is_depthwise
from lottery_tickets.structured.units import NOBODY, Member, UnitGroup, Units, prune_units

LARGEST_DIFFERENCE: Final = 1e-9  # of a smaller copy's outputs, relative to the largest; they are float64
SEED: Final = 0  # of the noise and of the units that go in a trial


def find_network_units(model: nn.Module, example_inputs: object) -> Units:
    """Returns the units of a network of convolutions, linear layers and batch norms.

    Args:
        model: The network; it stays as it is.
        example_inputs: What it is called with: a tensor, a tuple or list of arguments, or a dict of named ones.

    Raises:
        ModuleNotFoundError: When Torch-Pruning is not installed.
        ValueError: When there are no example inputs, or the network does not run on them.
    """
    if example_inputs is None:
        raise ValueError(
            "example_inputs must be given for a model that is not of transformers, such as a batch of one; its graph "
            "is found by running it"
        )
    noisy = _make_noisy_copy(model)
    aliases = find_aliases(noisy)
    inputs = _pytree.tree_map(_to_double, example_inputs)
    groups: dict[str, UnitGroup] = {}
    left_out: dict[str, str] = {}
    with seeded(SEED):
        for uses in _trace(noisy, inputs):
            if not any(use.is_outgoing for use in uses):
                continue  # the outputs of the network
            name = next(use.name for use in uses if use.is_producer)
            odd = next((use for use in uses if not use.can_be_cut), None)
            if odd is not None:
                left_out[name] = f"{odd.name!r}, a {type(odd.module).__name__}, is no layer that can lose some of it"
                continue
            group = _make_group(uses, name, aliases)
            if group.num_units > 1:
                groups[name] = group
            else:
                left_out[name] = "its channels can only go together"
        bad = _try_out(noisy, inputs, groups)
    return Units({name: group for name, group in groups.items() if name not in bad}, {**left_out, **bad})


@final
@dataclass(frozen=True, eq=False)
class _Use:
    """A layer whose outputs or inputs are among the channels of a group.

    Attributes:
        name: Of the layer.
        module: It; a parameter where it is no layer's.
        is_outgoing: Whether its inputs are meant.
        channels: Which of them.
        roots: For each the channel of the group's first layer that it stands for.
    """

    name: str
    module: nn.Module | nn.Parameter
    is_outgoing: bool
    channels: list[int]
    roots: list[int]

    @property
    def is_producer(self) -> bool:
        """Whether its outputs are channels of its own, and not those of its inputs once more."""
        is_convolution = isinstance(self.module, _ConvNd) and not is_depthwise(self.module)
        return not self.is_outgoing and (is_convolution or isinstance(self.module, nn.Linear))

    @property
    def num_channels(self) -> int:
        """How many inputs or outputs the layer has."""
        module: Any = self.module
        if isinstance(module, _ConvNd):
            return module.in_channels if self.is_outgoing else module.out_channels
        if isinstance(module, nn.Linear):
            return module.in_features if self.is_outgoing else module.out_features
        names = {nn.PReLU: "num_parameters", nn.Embedding: "embedding_dim"}
        return int(getattr(module, names.get(type(module), "num_features")))

    @property
    def num_repeats(self) -> int:
        """How many groups of its own a convolution has, of which each must lose the same channels."""
        return self.module.groups if isinstance(self.module, _ConvNd) and not is_depthwise(self.module) else 1

    @property
    def can_be_cut(self) -> bool:
        """Whether the layer can lose these channels."""
        known = isinstance(self.module, _ConvNd | nn.Linear | _NormBase | nn.PReLU | nn.Embedding)
        return known and max(self.channels, default=0) < self.num_channels


def _make_noisy_copy(model: nn.Module) -> nn.Module:
    """Returns a copy in float64 whose weights are all others, so that none hides a path by being zero."""
    noisy = copy.deepcopy(model)
    remove_mask(noisy)
    noisy.requires_grad_().double().eval()
    generator = make_generator(SEED, "noise")
    with torch.no_grad():
        for parameter in noisy.parameters():
            scale = float(parameter.std()) if parameter.numel() > 1 else 0.0
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(parameter.device), alpha=scale or 0.1)
    return noisy


def _to_double(value: object) -> object:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _trace(model: nn.Module, inputs: object) -> list[list[_Use]]:
    """Returns the layers of each group of the dependency graph, all in the order of the model."""
    with needing_extra("shrink"):
        import torch_pruning  # noqa: PLC0415 - an optional extra
    names = {module: clean_name(name) for name, module in model.named_modules()}
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that it takes for others: a trial says whether that was right
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(model, inputs, forward_fn=_call_all, verbose=False)
            groups = list(graph.get_all_groups())
        except Exception as error:
            raise ValueError(
                f"the units of a {type(model).__name__} must be found by Torch-Pruning, which runs a copy in float64 "
                f"on example_inputs, but it ended with {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
    order = {module: place for place, module in enumerate(names)}
    found = []
    for group in groups:
        uses = [
            _Use(
                names.get(item.dep.target.module, "a parameter of its own"),
                item.dep.target.module,
                _reads(graph, item.dep),
                item.idxs,
                item.root_idxs,
            )
            for item in group
            if _has_channels(item.dep.target.module, names)
        ]
        found.append(sorted(uses, key=lambda use: order.get(use.module, len(order))))
    return sorted(found, key=lambda uses: [order.get(use.module, len(order)) for use in uses if not use.is_outgoing])


def _call_all(model: nn.Module, inputs: object) -> list[Tensor]:
    """Returns what a model gives and what depends on its weights."""
    return [output for output in list_outputs(call(model, inputs)) if output.grad_fn is not None]


def _has_channels(module: object, names: Mapping[nn.Module, str]) -> bool:
    """Returns whether what stands in a graph has a number for each channel: a layer, and not one number for all."""
    if isinstance(module, nn.PReLU):
        return module.num_parameters > 1
    return isinstance(module, nn.Parameter) or module in names


def _reads(graph: Any, dependency: Any) -> bool:  # noqa: ANN401 - of Torch-Pruning
    layer = dependency.target.module
    is_reader = isinstance(layer, nn.Linear) or (isinstance(layer, _ConvNd) and not is_depthwise(layer))
    return is_reader and not graph.is_out_channel_pruning_fn(dependency.handler)


def _make_group(uses: list[_Use], name: str, aliases: Mapping[str, str]) -> UnitGroup:
    """Returns the group of some layers; channels that can only go together are one unit."""
    units = _number_units(uses)
    members = [replace(member, name=aliases[member.name]) for use in uses for member in _list_members(use, units)]
    is_convolution = any(isinstance(use.module, _ConvNd) for use in uses if not use.is_outgoing)
    return UnitGroup("channels" if is_convolution else "neurons", name, max(units.values()) + 1, tuple(members))


def _number_units(uses: list[_Use]) -> dict[int, int]:
    """Returns for each channel of the first layer the unit that it is part of."""
    parents = {root: root for use in uses for root in use.roots}

    def find(root: int) -> int:
        while parents[root] != root:
            root = parents[root]
        return root

    for use in uses:
        firsts: dict[int, int] = {}
        for channel, root in zip(use.channels, use.roots, strict=True):
            one, other = find(firsts.setdefault(channel % (use.num_channels // use.num_repeats), root)), find(root)
            parents[max(one, other)] = min(one, other)
    numbers = {first: number for number, first in enumerate(sorted({find(root) for root in parents}))}
    return {root: numbers[find(root)] for root in parents}


def _list_members(use: _Use, units: Mapping[int, int]) -> Iterator[Member]:
    owners = torch.full((use.num_channels,), NOBODY)
    for channel, root in zip(use.channels, use.roots, strict=True):
        owners[channel] = units[root]
    module: Any = use.module
    dim = 1 if isinstance(module, nn.Embedding) else int(use.is_outgoing)
    if isinstance(module, _ConvNd) and module.transposed and not is_depthwise(module):
        dim = 1 - dim
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for key, tensor in tensors:
        if tensor.ndim > 1:
            # Of a convolution in groups one side has the channels of a single one.
            yield Member(f"{use.name}.{key}".lstrip("."), dim, owners[: tensor.shape[dim]], use.is_outgoing)
        elif tensor.ndim == 1 and not use.is_outgoing:
            yield Member(f"{use.name}.{key}".lstrip("."), 0, owners, use.is_outgoing)


def _try_out(model: nn.Module, inputs: object, groups: Mapping[str, UnitGroup]) -> dict[str, str]:
    """Returns which groups are none, with the reason: without half of their units the network is another function."""
    if not groups or _try(model, inputs, groups.values()) is None:
        return {}
    tried = {name: _try(model, inputs, [group]) for name, group in groups.items()}
    bad = {name: reason for name, reason in tried.items() if reason is not None}
    rest = [group for name, group in groups.items() if name not in bad]
    reason = _try(model, inputs, rest) if rest else None
    return bad if reason is None else {**dict.fromkeys(groups, f"together with others: {reason}"), **bad}


def _try(model: nn.Module, inputs: object, groups: Iterable[UnitGroup]) -> str | None:
    groups = list(groups)
    generator = make_generator(SEED, "units")
    kept = {}
    for group in groups:
        kept[group.name] = torch.zeros(group.num_units, dtype=torch.bool)
        kept[group.name][torch.randperm(group.num_units, generator=generator)[: -(-group.num_units // 2)]] = True
    weights = prune_units(groups, kept, {name: p.shape for name, p in model.named_parameters()})
    cuts = find_cuts(groups, kept, model)
    state = {
        name: cuts.cut(name, tensor.where(weights[first], 0) if (first := cuts.aliases[name]) in weights else tensor)
        for name, tensor in model.state_dict().items()
    }
    try:
        with torch.no_grad():
            smaller = call(cut_modules(model, state, cuts), inputs)
            with masked(model, weights):
                difference = compare_outputs(smaller, call(model, inputs))
    except Exception as error:  # noqa: BLE001 - whatever a network raises that does not fit together
        return f"without half of it the network does not run ({' '.join(str(error).split())})"
    return None if difference <= LARGEST_DIFFERENCE else "without half of it the network gives something else"

"""Cutting tensors and modules: which indices of each tensor stay, in a model or in any state of it."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lottery_tickets._core.names import clean_name
from lottery_tickets.masks.holding import remove_mask
from lottery_tickets.structured.units import UnitGroup, keep_indices


@final
@dataclass(frozen=True, eq=False)
class Cuts:
    """What stays of a model's tensors.

    Attributes:
        indices: For each tensor that is cut, by name, and each of its dimensions, the indices that stay.
        aliases: For each name in a state the name that `indices` and masks have for it.
        path: Of the list of layers; "" where none goes.
        layers: The places of the layers that stay.
    """

    indices: Mapping[str, Mapping[int, Tensor]]
    aliases: Mapping[str, str]
    path: str = ""
    layers: Sequence[int] = ()

    def cut(self, name: str, tensor: Tensor) -> Tensor:
        """Returns what stays of a tensor; itself where nothing goes.

        Args:
            name: Of the tensor in the model.
            tensor: It, or another of its shape.
        """
        for dim, indices in self.indices.get(self.aliases.get(name, name), {}).items():
            tensor = tensor.index_select(dim, indices.to(tensor.device))
        return tensor

    def rename(self, name: str) -> str | None:
        """Returns the name that a tensor has in the smaller model; None where it goes with its layer."""
        if not self.path or not name.startswith(f"{self.path}."):
            return name
        place, _, rest = name.removeprefix(f"{self.path}.").partition(".")
        return f"{self.path}.{self.layers.index(int(place))}.{rest}" if int(place) in self.layers else None

    def cut_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns a state of the model, such as its starting weights, as a state of the smaller model."""
        clean = {clean_name(name): tensor for name, tensor in state.items()}
        kept = {name: renamed for name in clean if (renamed := self.rename(name)) is not None}
        return {renamed: self.cut(name, clean[name]) for name, renamed in kept.items()}


def find_cuts(groups: Iterable[UnitGroup], kept: Mapping[str, Tensor], model: nn.Module) -> Cuts:
    """Returns what stays of a model's tensors when units go.

    Args:
        groups: Of the model.
        kept: For each group, by name, which units stay.
        model: It.
    """
    stays: dict[str, dict[int, Tensor]] = {}
    path, layers = "", list[int]()
    for group in groups:
        if kept[group.name].all():
            continue
        if group.kind == "layers":
            path, layers = group.name, kept[group.name].nonzero().flatten().tolist()
            continue
        for member in group.members:
            dims = stays.setdefault(member.name, {})
            here = keep_indices(member, kept[group.name])
            dims[member.dim] = here & dims.get(member.dim, here)
    indices = {
        name: {dim: kept.nonzero().flatten() for dim, kept in dims.items() if not kept.all()}
        for name, dims in stays.items()
    }
    return Cuts({name: dims for name, dims in indices.items() if dims}, find_aliases(model), path, layers)


def find_aliases(model: nn.Module) -> dict[str, str]:
    """Returns for each name of a parameter or buffer the first name that it has."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    firsts: dict[int, str] = {}
    return {clean_name(name): firsts.setdefault(id(tensor), clean_name(name)) for name, tensor in named}


def cut_modules(model: nn.Module, state: Mapping[str, Tensor], cuts: Cuts) -> nn.Module:
    """Returns a copy of a model of ordinary layers that is cut, with another state; no mask is held on it.

    Args:
        model: The model; it stays as it is.
        state: For each name of `state_dict` a tensor of the smaller shape.
        cuts: What stays.
    """
    smaller = copy.deepcopy(model)
    remove_mask(smaller)
    made: dict[str, Tensor] = {}
    for prefix, module in smaller.named_modules():
        for slots in (module._parameters, module._buffers):  # noqa: SLF001 - where a module looks itself
            for key, tensor in slots.items():
                name = clean_name(f"{prefix}.{key}" if prefix else key)
                if tensor is None or name not in state:
                    continue
                first = cuts.aliases.get(name, name)
                if first not in made:
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[first] = nn.Parameter(state[name], tensor.requires_grad) if is_parameter else state[name]
                slots[key] = made[first]
        _resize(module)
    return smaller


def is_depthwise(module: _ConvNd) -> bool:
    """Returns whether each channel of a convolution is made of one channel alone."""
    return 1 < module.groups == module.in_channels == module.out_channels


def _resize(module: nn.Module) -> None:
    """Sets what a layer says of its size to what its tensors are; returns nothing."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd):
        first, second = module.weight.shape[:2]
        module.groups = first if is_depthwise(module) else module.groups
        sizes = first, second * module.groups
        module.out_channels, module.in_channels = reversed(sizes) if module.transposed else sizes
    elif isinstance(module, _NormBase):
        known = [tensor for tensor in (module.weight, module.running_mean) if tensor is not None]
        module.num_features = len(known[0]) if known else module.num_features
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]

"""Units: what goes together when a network becomes smaller, and which of them nothing reads any more.

A unit is made by its incoming weights and read through its outgoing ones. Where all outgoing weights of a unit are
zero, whatever it computes reaches nobody: that is the whole proof that it can go.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

KINDS: Final = ("channels", "neurons", "kv_groups", "experts", "layers")
NOBODY: Final = -1  # the owner of what belongs to no unit


@final
@dataclass(frozen=True, eq=False)
class Member:
    """The elements of one tensor that belong to the units of a group.

    Attributes:
        name: Of a parameter or buffer; of one that has several, the first.
        dim: Along which they lie.
        owners: For each index along it the unit that has it, or `NOBODY`; 1-D, int64. So the rows of a head, the block
            of columns of a flattened channel and a part of a concatenation are the same thing.
        is_outgoing: Whether it is what reads the units, not what makes them.
    """

    name: str
    dim: int
    owners: Tensor
    is_outgoing: bool = False


@final
@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that are alike: each can go without the others.

    Attributes:
        kind: "channels", "neurons", "kv_groups", "experts" or "layers".
        name: The module that they are of; of several that make them, the first.
        num_units: How many.
        members: The tensors that have parts of them.
        setting: The entry of a configuration of transformers that says how many; "" where there is none.
        least: How many must stay.
    """

    kind: str
    name: str
    num_units: int
    members: tuple[Member, ...]
    setting: str = ""
    least: int = 1


@final
@dataclass(frozen=True, eq=False)
class Units:
    """The units of a model.

    Attributes:
        groups: By name.
        left_out: What looks like a group and is none, by name, with the reason.
    """

    groups: Mapping[str, UnitGroup]
    left_out: Mapping[str, str]

    def of_kind(self, kind: str) -> list[UnitGroup]:
        """Returns the groups of a kind, of which there must be one.

        Raises:
            ValueError: When the kind is unknown, or the model has none of it; says why.
        """
        if kind not in KINDS:
            raise ValueError(f"units must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        found = [group for group in self.groups.values() if group.kind == kind]
        if not found:
            kinds = ", ".join(sorted({group.kind for group in self.groups.values()})) or "none at all"
            reasons = "".join(f"; {name}: {reason}" for name, reason in self.left_out.items())
            raise ValueError(f"the model must have units of the kind {kind!r} to prune, but has {kinds}{reasons}")
        return found


def prune_units(
    groups: Iterable[UnitGroup], kept: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Returns which weights stay when units go: for each parameter of the groups a boolean tensor of its shape.

    Args:
        groups: Of a model.
        kept: For each group, by name, which units stay.
        shapes: Of the model's parameters by name; members that are none, such as running statistics, have no weights.
    """
    found: dict[str, Tensor] = {}
    for group in groups:
        for member in group.members:
            if member.name in shapes:
                bits = found.setdefault(member.name, torch.ones(shapes[member.name], dtype=torch.bool))
                bits.index_fill_(member.dim, (~keep_indices(member, kept[group.name])).nonzero().flatten(), 0)
    return {name: found[name] for name in shapes if name in found}


def keep_indices(member: Member, kept: Tensor) -> Tensor:
    """Returns which indices of a member's dimension stay: those of the units that do, and those that belong to none."""
    return kept[member.owners.clamp_min(0)] | (member.owners == NOBODY)


def find_unread(group: UnitGroup, weights: Mapping[str, Tensor]) -> Tensor:
    """Returns which units of a group nothing reads, because all their outgoing weights are pruned.

    Args:
        group: The group.
        weights: By parameter name which weights are kept; a parameter that is missing keeps all.
    """
    is_read = torch.zeros(group.num_units, dtype=torch.bool)
    for member in group.members:
        if not member.is_outgoing:
            continue
        owned = member.owners != NOBODY
        if member.name in weights:
            owned = owned & weights[member.name].movedim(member.dim, 0).reshape(len(member.owners), -1).any(1)
        is_read[member.owners[owned]] = True
    return ~is_read

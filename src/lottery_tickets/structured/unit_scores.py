"""Scores of units, reduced from scores of their weights."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.names import clean_name
from lottery_tickets.masks.draws import draw_weights
from lottery_tickets.scores.formulas import TAYLOR
from lottery_tickets.scores.importance import Importance
from lottery_tickets.structured.unit_gradients import NAMES as DATA_NAMES
from lottery_tickets.structured.units import NOBODY, Member, UnitGroup

NAMES: Final = ("norm", "batch_norm_scale", "random")
# Formulas that give all weights of an output one score, which counts once.
OF_OUTPUTS: Final = tuple(TAYLOR["unit", norm].name for norm in ("absolute", "squared"))


def score_units(
    model: nn.Module, groups: Sequence[UnitGroup], scores: str | Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """Returns for each group by name the scores of its units, 1-D.

    Args:
        model: The model.
        groups: Of it.
        scores: As in `create_unit_mask`.
        seed: Of random scores.

    Raises:
        ValueError: When the name is unknown, a group has no batch norm, or scores are missing or of another shape.
    """
    if isinstance(scores, Mapping):
        if scores.keys() == {group.name for group in groups}:
            return {group.name: _check_units(group, scores[group.name]) for group in groups}
        of_outputs = isinstance(scores, Importance) and scores.report.get("score") in OF_OUTPUTS
        return {group.name: _sum_scores(group, _find_shapes(model), scores, of_outputs=of_outputs) for group in groups}
    if scores == "random":
        shapes = {group.name: torch.Size((group.num_units,)) for group in groups}
        drawn = draw_weights(shapes, {}, derive_seed(seed, "random units"))
        return {name: weight.tensor.clone() for name, weight in drawn.items()}
    if scores not in NAMES:
        raise ValueError(
            f"scores must be one of {', '.join(map(repr, (*NAMES, *DATA_NAMES)))} or a mapping, such as what "
            f"compute_fisher_importance returns, got {scores!r}"
        )
    parameters = {clean_name(name): parameter for name, parameter in model.named_parameters()}
    if scores == "norm":
        return {group.name: _sum_squares(group, parameters).sqrt() for group in groups}
    norms = {clean_name(f"{name}.weight").lstrip(".") for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    return {group.name: _average_scales(group, parameters, norms) for group in groups}


def _find_shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {clean_name(name): parameter.shape for name, parameter in model.named_parameters()}


def _list_weights(group: UnitGroup, shapes: Mapping[str, torch.Size]) -> list[Member]:
    """Returns the members that are incoming weights: no biases, norms or statistics."""
    return [m for m in group.members if not m.is_outgoing and m.name in shapes and len(shapes[m.name]) > 1]


def _add(group: UnitGroup, member: Member, values: Tensor) -> Tensor:
    """Returns for each unit the sum of a member's values, of which there is one an index, in float64."""
    owned = member.owners != NOBODY
    sums = torch.zeros(group.num_units, dtype=torch.float64)
    return sums.index_add_(0, member.owners[owned], values.detach().cpu().double()[owned])


def _sum_squares(group: UnitGroup, parameters: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros(group.num_units, dtype=torch.float64)
    for member in _list_weights(group, {name: parameter.shape for name, parameter in parameters.items()}):
        others = [dim for dim in range(parameters[member.name].ndim) if dim != member.dim]
        norms = torch.linalg.vector_norm(parameters[member.name].detach(), dim=others, dtype=torch.float64)
        total += _add(group, member, norms.square())
    return total


def _average_scales(group: UnitGroup, parameters: Mapping[str, Tensor], norms: set[str]) -> Tensor:
    found = [member for member in group.members if member.name in norms]
    if not found:
        raise ValueError(
            f"scores 'batch_norm_scale' need a batch norm in each group of units, but {group.name!r} has none; take "
            "'norm'"
        )
    sums = sum(_add(group, member, parameters[member.name].abs()) for member in found)
    counts = sum(_add(group, member, torch.ones(len(member.owners))) for member in found)
    return torch.as_tensor(sums) / torch.as_tensor(counts).clamp_min(1)


def _sum_scores(
    group: UnitGroup, shapes: Mapping[str, torch.Size], scores: Mapping[str, Tensor], *, of_outputs: bool
) -> Tensor:
    total = torch.zeros(group.num_units, dtype=torch.float64)
    for member in _list_weights(group, shapes):
        score = scores.get(member.name)
        if not isinstance(score, Tensor) or score.shape != shapes[member.name]:
            got = f"scores of shape {tuple(score.shape)}" if isinstance(score, Tensor) else "none"
            raise ValueError(
                f"scores must have one for each weight that makes a unit of {group.name!r}, of which {member.name!r} "
                f"has the shape {tuple(shapes[member.name])}, got {got}; were they computed for other weights?"
            )
        rows = score.detach().double().movedim(member.dim, 0).flatten(1)
        total += _add(group, member, rows[:, 0] if of_outputs else rows.sum(1))
    return total


def _check_units(group: UnitGroup, score: object) -> Tensor:
    if not isinstance(score, Tensor) or score.shape != (group.num_units,) or not score.is_floating_point():
        got = f"{score.dtype} of shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
        raise ValueError(f"the scores of {group.name!r} must be {group.num_units} floats, one a unit, got {got}")
    return score.detach().cpu()

"""Scopes: a sparsity and a way to compare become groups of scores with a count each, and the groups become bits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from torch import Tensor

from lottery_tickets._core.selection.allocation import allocate_erk, allocate_lamp
from lottery_tickets._core.selection.largest import check_finite, select_largest
from lottery_tickets._core.selection.patterns import check_within, count_eligible
from lottery_tickets._core.selection.rows import select_in_blocks, select_in_rows
from lottery_tickets._core.selection.scope_names import check_sparsity, parse_n_of_m
from lottery_tickets._core.weights import Weights


@dataclass(frozen=True)
class _Task:
    """Scores to select from, checked: the sparsity is over all of them, also where `within` excludes some."""

    scores: Weights
    sparsity: float
    within: Mapping[str, Tensor] | None

    @property
    def num_kept(self) -> int:
        total = self.scores.num_weights
        return total - round(self.sparsity * total)

    @cached_property
    def num_eligible(self) -> dict[str, int]:
        if self.within is None:
            return {name: shape.numel() for name, shape in self.scores.whole_shapes.items()}
        return count_eligible(self.scores, self.within)


def select_in_scope(
    scores: Weights,
    sparsity: float | None,
    *,
    scope: str = "global",
    within: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Returns packed bits by name: 1 where a score is among the largest magnitudes of its group.

    With n scores in all, `global`, `erk` and `lamp` remove exactly round(sparsity * n), `layer` removes
    round(sparsity * n_i) of the n_i scores of each tensor, and `row` removes round(sparsity * n_r) of the n_r scores of
    each output. Equal magnitudes are kept in order of position.

    Args:
        scores: Of any float dtype; their magnitudes are compared.
        sparsity: The share removed of all scores, from 0 to 1. None for N:M, whose share is 1 - N/M.
        scope: What is compared with what. `global`: all scores. `layer`: the scores of one tensor. `row`: those of one
            output (Sun et al., Wanda, arXiv:2306.11695). `erk`: those of one tensor, at a density proportional to the
            sum of its dimensions over their product (Evci et al., RigL, arXiv:1911.11134). `lamp`: all, each w_u
            scored w_u^2 / sum of w_v^2 over the v >= u of its tensor in ascending order (Lee et al., arXiv:2010.07611).
            "N:M": keep N of each M that follow each other along the inputs of one output.
        within: For each name the packed bits that may be kept.

    Raises:
        TypeError: When a score is not a float tensor or the sparsity is not a number.
        ValueError: When the sparsity is out of range, the scope unknown, a score NaN or infinite, `within` does not fit
            or has too few bits, or N:M does not divide a tensor's inputs.

    Examples:
        >>> import torch
        >>> scores = Weights.from_tensors({"a": torch.tensor([[4.0, 1.0], [3.0, 2.0]])})
        >>> bits = select_in_scope(scores, 0.5, scope="row")
        >>> f"{int(bits['a'][0]):04b}"[::-1]
        '1010'
    """
    n_of_m = parse_n_of_m(scope)
    share = check_sparsity(sparsity, scope)
    if within is not None:
        check_within(scores, within)
    task = _Task(scores, share, within)
    if n_of_m is not None:
        return select_in_blocks(scores, n_of_m, within=within)
    return SELECTORS[scope](task)


def _select_globally(task: _Task) -> dict[str, Tensor]:
    _check_enough(task.num_kept, sum(task.num_eligible.values()), task.sparsity, "the weights")
    return select_largest(task.scores, task.num_kept, within=task.within)


def _select_by_layer(task: _Task) -> dict[str, Tensor]:
    counts = {}
    for name, score in task.scores.items():
        size = score.whole_shape.numel()
        counts[name] = size - round(task.sparsity * size)
        _check_enough(counts[name], task.num_eligible[name], task.sparsity, repr(name))
    return _select_counts(task, counts)


def _select_by_erk(task: _Task) -> dict[str, Tensor]:
    _check_enough(task.num_kept, sum(task.num_eligible.values()), task.sparsity, "the weights")
    shapes = {name: tuple(shape) for name, shape in task.scores.whole_shapes.items()}
    return _select_counts(task, allocate_erk(shapes, task.num_eligible, task.num_kept))


def _select_by_lamp(task: _Task) -> dict[str, Tensor]:
    _check_enough(task.num_kept, sum(task.num_eligible.values()), task.sparsity, "the weights")
    check_finite(task.scores)
    return _select_counts(task, allocate_lamp(task.scores, task.within, task.num_kept))


def _select_by_row(task: _Task) -> dict[str, Tensor]:
    return select_in_rows(task.scores, task.sparsity, within=task.within)


def _select_counts(task: _Task, counts: Mapping[str, int]) -> dict[str, Tensor]:
    bits: dict[str, Tensor] = {}
    for name in task.scores:
        within = None if task.within is None else {name: task.within[name]}
        bits |= select_largest(task.scores.part([name]), counts[name], within=within)
    return bits


def _check_enough(num_kept: int, num_eligible: int, sparsity: float, what: str) -> None:
    if num_kept > num_eligible:
        raise ValueError(
            f"sparsity {sparsity:g} keeps {num_kept} of {what}, but `within` has only {num_eligible} left; "
            "ask for a higher sparsity, it counts all weights and not the survivors only"
        )


SELECTORS: Final[Mapping[str, Callable[[_Task], dict[str, Tensor]]]] = {
    "global": _select_globally,
    "layer": _select_by_layer,
    "row": _select_by_row,
    "erk": _select_by_erk,
    "lamp": _select_by_lamp,
}

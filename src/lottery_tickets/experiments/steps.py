"""The steps of a training as functions: which mask, which starting weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lottery_tickets._core.folders import load_state
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets.experiments.plan import FRESH, ExperimentPlan, Training
from lottery_tickets.experiments.records import REWIND, WEIGHTS, load_mask
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.masks.controls import shuffle_mask
from lottery_tickets.masks.mask import Mask


def prune_survivors(state: Mapping[str, Tensor], mask: Mask, schedule: PruningSchedule, level: int) -> Mask:
    """Returns the mask of a level: of each group, the largest trained weights among the survivors of the level before.

    Args:
        state: Trained weights by name.
        mask: The mask they were trained under.
        schedule: How many survive.
        level: The level of the mask to return, 1 or more.
    """
    sizes = {name: shape.numel() for name, shape in mask.shapes.items()}
    bits: dict[str, Tensor] = {}
    for group, num_kept in schedule.count_kept(sizes, level).items():
        weights = [state[name] for name in group.names]
        kept = select_largest(weights, num_kept, within=[mask.bits[name] for name in group.names])
        bits |= dict(zip(group.names, kept, strict=True))
    provenance = {"method": "iterative magnitude pruning", "level": level}
    return Mask({name: bits[name] for name in mask}, mask.shapes, provenance)


def keep_all(weights: Mapping[str, Tensor]) -> Mask:
    """Returns the mask of level 0, which keeps every weight."""
    return Mask.from_tensors({name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()})


def find_mask(run: Path, training: Training, plan: ExperimentPlan, weights: Mapping[str, Tensor]) -> Mask:
    """Returns the mask that a training is held to, from the files of the trainings before it.

    Args:
        run: The run folder.
        training: Which training.
        plan: The run's plan.
        weights: The prunable weights by name; only their shapes count.
    """
    if training.level == 0:
        return keep_all(weights)
    if training.branch == "ticket":
        trained = load_state(run / training.parent.path / WEIGHTS)
        return prune_survivors(trained, load_mask(run, training.parent), plan.schedule, training.level)
    mask = load_mask(run, training.ticket)
    if training.branch == "reinitialised":
        return mask
    return shuffle_mask(mask, training.derive_seeds(plan)["mask"])


def find_start(run: Path, training: Training, plan: ExperimentPlan, mask: Mask) -> dict[str, Tensor] | None:
    """Returns the stored state that a training starts from, pruned; None when it starts from a fresh initialisation."""
    if training.level == 0 or training.branch in FRESH:
        return None
    if plan.rewinding == "learning_rate" and training.branch == "ticket":
        state = load_state(run / training.parent.path / WEIGHTS)
    else:
        state = load_state(run / training.dense.path / REWIND)
    prune_state_(state, mask)
    return state


def prune_state_(state: Mapping[str, Tensor], mask: Mask) -> None:
    """Zeroes the pruned weights of a state, in place."""
    for name, bits in mask.bits.items():
        if state[name].shape != mask.shapes[name]:  # the kernels trust their sizes, and files may lie
            shapes = f"{tuple(state[name].shape)} and its mask {tuple(mask.shapes[name])}"
            raise ValueError(f"a state must fit its mask, but {name!r} has shape {shapes}; was a file altered?")
        zero_pruned_(state[name], bits)

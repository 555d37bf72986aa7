"""The steps of a round of iterative magnitude pruning as functions: prune, rewind, train."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from lottery_tickets._core.reading import naming
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.states import copy_clean_state, load_clean_state
from lottery_tickets._core.weights import Weights
from lottery_tickets.experiments.folder import EARLY_STOP, REWIND, START, ExperimentFolder, stops_early
from lottery_tickets.experiments.plan import FRESH, ExperimentPlan, Training
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.masks.controls import shuffle_mask
from lottery_tickets.masks.mask import Mask

State = dict[str, Tensor]


def prune_survivors(trained: Weights, mask: Mask, schedule: PruningSchedule, level: int) -> Mask:
    """Returns the mask of a level: of each group, the largest trained weights among the survivors of the level before.

    Args:
        trained: The weights after training.
        mask: The mask they were trained under.
        schedule: How many survive.
        level: The level of the mask to return, 1 or more.
    """
    sizes = {name: shape.numel() for name, shape in mask.shapes.items()}
    bits: dict[str, Tensor] = {}
    for group, num_kept in schedule.count_kept(sizes, level).items():
        within = {name: mask.bits[name] for name in group.names}
        bits |= select_largest(trained.part(group.names), num_kept, within=within)
    provenance = {"method": "iterative magnitude pruning", "level": level}
    return Mask(bits, mask.local_shapes, provenance, mask.shards)


def prune(
    folder: ExperimentFolder, training: Training, shapes: Mapping[str, tuple[int, ...]], ticket: Mask | None = None
) -> Mask:
    """Returns the mask that a training is held to, from the files of the trainings before it.

    Args:
        folder: The folder of the run.
        training: Which training.
        shapes: Those of the prunable weights, over all processes.
        ticket: The mask of level 1, where it is given.
    """
    if training.level == 0:
        return folder.place_mask(Mask.keeping_all(shapes))
    if training.branch == "ticket" and ticket is not None:
        return folder.place_mask(ticket)
    if training.branch == "ticket":
        trained = Weights.from_tensors(folder.load_weights(training.parent))
        return prune_survivors(trained, folder.load_mask(training.parent), folder.plan.schedule, training.level)
    mask = folder.load_mask(training.ticket)
    if training.branch in ("copy", "reinitialised"):
        return mask
    seed = training.derive_seeds(folder.plan)["mask"]
    if training.branch == "exponents":
        return shuffle_mask(mask, seed, given=folder.load_rewind_point(training))
    return shuffle_mask(mask, seed, keeping=folder.plan.super_weights if training.branch == "super" else None)


def find_start(folder: ExperimentFolder, training: Training, mask: Mask) -> dict[str, Tensor] | None:
    """Returns the stored state that a training starts from, under its mask; None when it starts from fresh weights."""
    if training == folder.plan.find_origin(training.replicate) or training.branch in FRESH:
        return None
    state = load_start(folder, training)
    if folder.plan.others == "zero":
        prune_state_(state, mask)
    return state


def load_start(folder: ExperimentFolder, training: Training) -> State:
    """Returns the state that a training after the first starts from, before pruning: theta_k, or what was trained."""
    if folder.plan.rewinding == "learning_rate" and training.branch in ("ticket", "copy") and training.level:
        return folder.load_weights(training.parent)
    return folder.load_rewind_point(training)


def rewind_(model: nn.Module, folder: ExperimentFolder, training: Training, mask: Mask) -> None:
    """Sets a freshly built model to the weights that a training starts from, in place."""
    start = find_start(folder, training, mask)
    if start is not None:
        with naming(folder.path, f"hold what {training.path} starts from"):
            load_clean_state(model, start)


def train(
    model: nn.Module, subject: Subject, training: Training, plan: ExperimentPlan, start: State
) -> tuple[dict[str, Any], dict[str, State]]:
    """Trains a model in place from where it was rewound to.

    Args:
        model: Rewound, and held to its mask.
        subject: What trains it.
        training: Which training.
        plan: The plan it is part of.
        start: A copy of the model's state.

    Returns:
        The history, and by file name the states to be stored beside the trained one: theta_k, the weights that later
        rounds are rewound to, where this training passes it; that of the early stop where it is not the end.
    """
    if training.branch == "shared":
        return _train_shared(model, subject, training, plan, start)
    kept: dict[str, State] = {}

    def keep(name: str) -> None:
        kept[name] = copy_clean_state(model)

    keeps_rewind_point = training == plan.find_origin(training.replicate)
    if keeps_rewind_point and plan.rewind_step == 0:
        kept[REWIND] = start
    history = subject.train(
        model,
        first_step=training.first_step(plan),
        last_step=plan.num_steps,
        seed=training.derive_seeds(plan)["data_order"],
        rewind_step=plan.rewind_step,
        keep_rewind_point=partial(keep, REWIND) if keeps_rewind_point and plan.rewind_step else lambda: None,
        keep_early_stop=partial(keep, EARLY_STOP),
    )
    if not stops_early(history):
        kept.pop(EARLY_STOP, None)
    return history, kept


def _train_shared(
    model: nn.Module, subject: Subject, training: Training, plan: ExperimentPlan, start: State
) -> tuple[dict[str, Any], dict[str, State]]:
    """Trains to step k, which may be none at all; keeps theta_0 too where it is not theta_k."""
    kept: dict[str, State] = {}
    if plan.rewind_step:
        kept[START] = start
        subject.train(
            model,
            first_step=0,
            last_step=plan.rewind_step,
            seed=training.derive_seeds(plan)["data_order"],
            rewind_step=0,
            keep_rewind_point=lambda: None,
            keep_early_stop=lambda: None,
        )
    return {"end": {"step": plan.rewind_step, **subject.evaluate(model)}}, kept


def prune_state_(state: Mapping[str, Tensor], mask: Mask) -> None:
    """Zeroes the pruned weights of a state, in place."""
    for name, bits in mask.bits.items():
        if state[name].shape != mask.shapes[name]:  # the kernels trust their sizes, and files may lie
            shapes = f"{tuple(state[name].shape)} and its mask {tuple(mask.shapes[name])}"
            raise ValueError(f"a state must fit its mask, but {name!r} has shape {shapes}; was a file altered?")
        local = see_local(state[name])
        zero_pruned_(local, bits.to(local.device))

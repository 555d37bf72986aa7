"""Iterative magnitude pruning: train, prune, rewind, repeat; or a quick simulation of it without training."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import nn
from tqdm import tqdm

from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.determinism import seeded
from lottery_tickets._core.folders import load_state
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.training.plain_loop import evaluate_batches
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets._core.weights import Weights
from lottery_tickets.experiments import records
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.results import PruningResults, TrainingRow
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule, Scope
from lottery_tickets.experiments.steps import prune_survivors
from lottery_tickets.masks.controls import check_reinitialisable
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask


def compute_iterative_magnitude_pruning(
    model: nn.Module,
    dataloader: Iterable[Any],
    target_sparsity: float = 0.9,
    *,
    trainer_fn: TrainerFunction | None = None,
    train: bool = False,
    num_epochs: int = 10,
    prune_rates: float | Mapping[str, float] = 0.2,
    scope: Scope = "global",
    include: Choices | None = None,
    exclude: Choices | None = None,
    rewind_epoch: int = 0,
    rewinding: Literal["weights", "learning_rate"] = "weights",
    control_levels: Sequence[int] | Literal["last", "none"] = "last",
    num_replicates: int = 1,
    seed: int = 42,
    learning_rate: float = 1e-3,
    evaluation_dataloader: Iterable[Any] | None = None,
    loss_fn: LossFunction | None = None,
    initialise_fn: Callable[[nn.Module], object] | None = None,
    run_folder: str | Path | None = None,
    progress: bool = False,
) -> PruningResults:
    """Returns the tickets of a model found by iterative magnitude pruning, with their masks and their controls.

    With a `trainer_fn`, or with `train=True`, this is the published procedure (Frankle & Carbin 1803.03635; rewinding
    to a later epoch 1903.01611; learning-rate rewinding, Renda et al. 2003.02389): train to the end, prune a share of
    the survivors, rewind them, repeat. It trains `model` in place and leaves it as the last ticket, trained.

    Without either it is a *simulation*: one look at the magnitudes, a sweep over the same sparsities, no training.
    The result says `simulated: True`; no ticket has been trained and none may be claimed. The model comes back as it
    was.

    Args:
        model: Its present weights are theta_0.
        dataloader: Batches, see the three ways a model can be driven in `compute_loss`; iterated anew each epoch.
        target_sparsity: Fraction of the prunable weights removed at the end, in [0, 1); met exactly.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`; trains in place or returns a model. Pruned
            weights stay zero whatever it does.
        train: Trains with Adam at `learning_rate` instead of a `trainer_fn`.
        num_epochs: Epochs of each training.
        prune_rates: Share of the survivors removed a round, or such shares by glob pattern of parameter names; the
            first match decides.
        scope: What magnitudes are compared within, "global" or "layer".
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        rewind_epoch: k of theta_k; 0 rewinds to theta_0.
        rewinding: "weights", or "learning_rate" to keep the trained weights and repeat only the schedule.
        control_levels: Rounds at which the controls are trained as well: "last", "none", or numbers from 1.
        num_replicates: Independent repetitions; the first starts from the model's own weights, the others from fresh
            ones.
        seed: Every use of chance derives its own seed from it.
        learning_rate: Of Adam, with `train=True`.
        evaluation_dataloader: What results are measured on; the training data when None.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        initialise_fn: Draws fresh weights of a model in place; by default each module's `reset_parameters`.
        run_folder: Keeps every training; the same call continues it after an interruption. None uses a temporary
            folder.
        progress: Whether to show a bar.

    Returns:
        `simulated`, `target_sparsity`, `masks` (one a level, level 0 is dense), `final_mask`, `rewind_state` (theta_k
        by name), `trainings` (rows with `replicate`, `level`, `branch`, `density`, `history`), `run_folder`. Masks
        and states are those of the first replicate. A simulation has `trainings` with the loss at each level, and
        `rewind_state` None.

    Raises:
        TypeError: When `dataloader` is an iterator, which is used up after one epoch, or the model refuses a batch.
        ValueError: When an argument is out of range, the data is empty, or `run_folder` belongs to another experiment.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
        >>> found = compute_iterative_magnitude_pruning(
        ...     model, data, 0.5, train=True, num_epochs=1, control_levels="none"
        ... )
        >>> found["final_mask"].num_kept, [training["density"] for training in found["trainings"]]
        (4, [1.0, 0.75, 0.625, 0.5])
    """
    check_restartable(dataloader)
    schedule = _make_schedule(prune_rates, scope, target_sparsity)
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    num_levels = schedule.find_last_level({name: weight.size for name, weight in weights.items()})
    if trainer_fn is None and not train:
        with seeded(seed):  # a shuffling data loader draws from the global generators
            return _simulate(
                model, weights, dataloader, loss_fn, schedule=schedule, num_levels=num_levels, progress=progress
            )
    plan = ExperimentPlan(
        subject={},
        schedule=schedule,
        num_levels=num_levels,
        num_steps=num_epochs,
        rewind_step=rewind_epoch,
        rewinding=rewinding,
        control_levels=_list_control_levels(control_levels, num_levels),
        num_replicates=num_replicates,
        seed=seed,
    )
    subject = CallerSubject(
        model,
        dataloader,
        trainer_fn or AdamTrainer(learning_rate, loss_fn),
        layers=list(weights),
        num_epochs=num_epochs,
        own_seed=Training(0, 0, "ticket").derive_seeds(plan)["initialisation"],
        evaluation_dataloader=evaluation_dataloader,
        loss_fn=loss_fn,
        initialise_fn=initialise_fn,
    )
    if initialise_fn is None and (num_replicates > 1 or plan.control_levels):
        check_reinitialisable(model)
    plan = replace(plan, subject=subject.describe())
    with tempfile.TemporaryDirectory() if run_folder is None else nullcontext(run_folder) as folder:
        return _run(Path(folder), plan, subject, model, progress=progress, keep=run_folder is not None)


@final
class AdamTrainer:
    """The trainer that `train=True` stands for: Adam at a constant learning rate, one pass over the data an epoch."""

    def __init__(self, learning_rate: float, loss_fn: LossFunction | None = None) -> None:
        self.learning_rate, self.loss_fn = learning_rate, loss_fn
        self.__qualname__ = f"AdamTrainer({learning_rate})"  # the name that a run folder knows it by

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        """Trains in place."""
        optimizer = torch.optim.Adam(model.parameters(), self.learning_rate)
        model.train()
        for _ in range(epochs):
            num_batches = 0
            for num_batches, batch in enumerate(dataloader, start=1):  # noqa: B007 - counts the batches
                compute_loss(model, batch, self.loss_fn).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if not num_batches:
                raise ValueError("the dataloader must hold at least one batch each epoch, but gave none; is it empty?")


def _make_schedule(prune_rates: float | Mapping[str, float], scope: Scope, target_sparsity: float) -> PruningSchedule:
    rates = prune_rates.items() if isinstance(prune_rates, Mapping) else [("*", prune_rates)]
    return PruningSchedule(tuple((pattern, float(rate)) for pattern, rate in rates), scope, float(target_sparsity))


def _run(
    folder: Path, plan: ExperimentPlan, subject: CallerSubject, model: nn.Module, *, progress: bool, keep: bool
) -> PruningResults:
    try:
        results = run_experiment(folder, plan, lambda: subject, progress=progress)
    except BaseException:
        model.load_state_dict(subject.own_state)  # so that the same call, on the same model, can go on
        raise
    tickets = [Training(0, level, "ticket") for level in range(plan.num_levels + 1)]
    masks = [records.load_mask(folder, ticket) for ticket in tickets]
    model.load_state_dict(load_state(folder / tickets[-1].path / records.WEIGHTS))
    return {
        "simulated": False,
        "target_sparsity": plan.schedule.target_sparsity or 0.0,
        "masks": masks,
        "final_mask": masks[-1],
        "rewind_state": load_state(folder / tickets[0].path / records.REWIND),
        "trainings": results["trainings"],
        "run_folder": str(folder) if keep else None,
    }


def _simulate(
    model: nn.Module,
    weights: Weights,
    dataloader: Iterable[Any],
    loss_fn: LossFunction | None,
    *,
    schedule: PruningSchedule,
    num_levels: int,
    progress: bool,
) -> PruningResults:
    warnings.warn(
        "this is a simulation: no ticket has been trained, and none may be claimed; pass trainer_fn or train=True for "
        "iterative magnitude pruning",
        stacklevel=3,
    )
    masks: list[Mask] = []
    rows: list[TrainingRow] = []
    for level in tqdm(range(num_levels + 1), unit="level", disable=not progress):
        masks.append(
            prune_survivors(weights, masks[-1], schedule, level) if level else Mask.keeping_all(weights.shapes)
        )
        with torch.no_grad(), masked(model, masks[-1]):
            loss, accuracy = evaluate_batches(model, dataloader, loss_fn)
        rows.append(
            {
                "replicate": 0,
                "level": level,
                "branch": "simulated",
                "num_weights": masks[-1].num_weights,
                "num_kept": masks[-1].num_kept,
                "density": masks[-1].density,
                "history": {"end": {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}},
            }
        )
    return {
        "simulated": True,
        "target_sparsity": schedule.target_sparsity or 0.0,
        "masks": masks,
        "final_mask": masks[-1],
        "rewind_state": None,
        "trainings": rows,
        "run_folder": None,
    }


def _list_control_levels(asked: Sequence[int] | str, num_levels: int) -> tuple[int, ...]:
    if asked == "none" or num_levels == 0:
        return ()
    if asked == "last":
        return (num_levels,)
    if isinstance(asked, str):
        raise ValueError(f"control_levels must be 'last', 'none' or numbers of rounds from 1, but got {asked!r}")
    return tuple(sorted(set(asked)))

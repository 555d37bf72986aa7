"""Iterative magnitude pruning: train, prune, rewind, repeat; or a quick simulation of it without training."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.loggers import Logger
from lottery_tickets._core.measuring.performance import Measurement, MetricFunction, MetricName
from lottery_tickets._core.memory.asking import ask_before_pruning
from lottery_tickets._core.notebooks import show_own
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.records import recorded
from lottery_tickets._core.sharding.data_parallel import find_together
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.states import load_clean_state
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets._core.weights import Weights
from lottery_tickets.experiments.adam_trainer import AdamTrainer
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.elsewhere.tasks import Executor
from lottery_tickets.experiments.folder import IMP_FROM_PYTHON
from lottery_tickets.experiments.growth import grow_to_target
from lottery_tickets.experiments.keeping import Keeping
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.pruning_results import PruningResults
from lottery_tickets.experiments.schedules import PruningSchedule, Scope
from lottery_tickets.experiments.simulation import simulate_rounds
from lottery_tickets.masks.controls import check_reinitialisable
from lottery_tickets.storage import KeptState

__dir__ = show_own(__name__)


@recorded("experiment")
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
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    initialise_fn: Callable[[nn.Module], object] | None = None,
    run_folder: str | Path | None = None,
    accept_changed_environment: bool = False,
    trainer_id: str | None = None,
    data_id: str | None = None,
    progress: bool = False,
    logger: Logger | Iterable[Logger] | None = None,
    executor: Executor | None = None,
    path: str | Path | None = None,  # @recorded writes there
) -> PruningResults:
    """Returns the tickets of a model found by iterative magnitude pruning, with their masks and their controls.

    With a `trainer_fn`, or with `train=True`, this is the published procedure (Frankle & Carbin 1803.03635; rewinding
    to a later epoch 1903.01611; learning-rate rewinding, Renda et al. 2003.02389): train to the end, prune a share of
    the survivors, rewind them, repeat. It trains `model` in place and leaves it as the last ticket, trained.

    A model that several processes train, under `fully_shard`, tensor parallelism or `DistributedDataParallel`, is
    pruned by all of them in one call, see docs/howto/sharded-models.md. Each gets the masks and states of what lies in
    it; the first has the files, and no other need see them.

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
        metric: "auto" (perplexity for language models, accuracy for other classification, else loss), "accuracy",
            "perplexity", "loss", or a function of the model and the data loader that returns a number.
        higher_is_better: Whether more is better, for a function.
        initialise_fn: Draws fresh weights of a model in place; by default each module's `reset_parameters`.
        run_folder: Keeps every training; the same call continues it after an interruption, and a call with more
            replicates, further controls or a sparser target adds what is missing. None uses a temporary folder.
        accept_changed_environment: Whether to go on in a run folder with other versions, another machine, another
            number of threads, or of processes that train one model. What is there stays; equal bits are then no longer
            claimed.
        trainer_id: A name for the trainer, where its code does not say what it does; a run folder is only continued
            with the trainer, the data and the architecture that it was begun with.
        data_id: A name for the data, of training and of evaluation, where its samples cannot be compared.
        progress: Whether to show a bar.
        logger: Told the figures of each training when it has ended: anything with `log(values, step)`, or several, such
            as those of `lottery_tickets.integrations` for TensorBoard and Weights & Biases. It changes nothing.
        executor: Trains the replicates elsewhere: a `concurrent.futures.Executor`, a Dask client, or a `SlurmExecutor`
            of `lottery_tickets.integrations.slurm`; see docs/howto/cluster.md. None trains here. Workers train on one
            thread and give the same bits as one thread here. They must see `run_folder` at the same path.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`. Not where several
            processes train one model.

    Returns:
        `simulated`, `target_sparsity`, `masks` (one a level, level 0 is dense), `final_mask`, `rewind_state` (theta_k
        by name), `trainings` (rows with `replicate`, `level`, `branch`, `density`, `history`, `layers` and
        `share_moved`, see `TrainingRow`), `run_folder`; `plan`, `environments`, `unidentified`, `looks` and `records`
        as in the `results.json` of a run folder. Masks and states are those of the first replicate. `.claims()` says
        what the trainings show, `.save_ticket(path, level)` writes a ticket as one file. A simulation has `trainings`
        with the loss at each level, and `rewind_state` None.

    Raises:
        TypeError: When `dataloader` is an iterator, which is used up after one epoch, or the model refuses a batch.
        ValueError: When an argument is out of range, the data is empty, or `run_folder` belongs to another experiment
            or was altered; or processes that train one model have other arguments or environments.
        RuntimeError: When one of these processes has ended or does not answer, within the timeout of their group.
        OSError: When a file of `run_folder` cannot be read or written.

    Examples:
        >>> import torch
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
    together = _find_together(model, path)
    num_levels = _find_last_level(weights, schedule)
    if trainer_fn is None and not train:
        return simulate_rounds(
            model, weights, dataloader, schedule, num_levels, loss_fn=loss_fn, seed=seed, progress=progress
        )
    together.agree(partial(_ask_for_room, model, trainer_fn, include=include, exclude=exclude))
    trainer = trainer_fn or AdamTrainer(learning_rate, loss_fn)
    measurement = Measurement(loss_fn, metric, higher_is_better)
    subject = CallerSubject(
        model, dataloader, trainer, list(weights), num_epochs, evaluation_dataloader, measurement, initialise_fn
    )
    plan = ExperimentPlan(
        subject=subject.describe(),
        schedule=schedule,
        num_levels=num_levels,
        num_steps=num_epochs,
        rewind_step=rewind_epoch,
        rewinding=rewinding,
        control_levels=_list_control_levels(control_levels, num_levels),
        num_replicates=num_replicates,
        seed=seed,
    )
    kept = Keeping(run_folder, accept_changed_environment, trainer_id, data_id, progress, logger, executor)
    return _find_tickets(plan, subject, kept)


def _find_together(model: nn.Module, path: str | Path | None) -> Together:
    """Returns the processes that train a model; raises where each of several would write results of its own."""
    together = find_together(model)
    if path is not None and together is not ALONE:
        raise ValueError(
            f"path= must be None where {together.num_processes} processes train one model, but is {str(path)!r}; pass "
            "run_folder=, which the first of them writes"
        )
    return together


def _ask_for_room(model: nn.Module, trainer_fn: TrainerFunction | None, **choices: Choices | None) -> None:
    ask_before_pruning(model, by_adam=trainer_fn is None, choices=choices)


def _check_fresh_weights(plan: ExperimentPlan, subject: CallerSubject) -> None:
    if subject.initialise_fn is None and (plan.num_replicates > 1 or plan.control_levels):
        check_reinitialisable(subject.model)


def _make_schedule(prune_rates: float | Mapping[str, float], scope: Scope, target_sparsity: float) -> PruningSchedule:
    rates = prune_rates.items() if isinstance(prune_rates, Mapping) else [("*", prune_rates)]
    return PruningSchedule(tuple((pattern, float(rate)) for pattern, rate in rates), scope, float(target_sparsity))


def _find_last_level(weights: Weights, schedule: PruningSchedule) -> int:
    return schedule.find_last_level({name: shape.numel() for name, shape in weights.whole_shapes.items()})


def _find_tickets(plan: ExperimentPlan, subject: CallerSubject, keeping: Keeping) -> PruningResults:
    """Trains, prunes, rewinds and repeats, see `compute_training`; the model is then the last ticket, trained."""
    _check_fresh_weights(plan, subject)
    find_end = partial(_find_last_level, subject.find_weights(subject.model))
    grow = partial(grow_to_target, find_last_level=find_end)
    try:
        with keeping.running(subject, plan, IMP_FROM_PYTHON, grow) as (folder, results):
            tickets = [Training(0, level, "ticket") for level in range(folder.plan.num_levels + 1)]
            masks = [folder.load_mask(ticket) for ticket in tickets]
            load_clean_state(subject.model, folder.load_weights(tickets[-1]))
            return PruningResults(
                simulated=False,
                target_sparsity=folder.plan.schedule.target_sparsity or 0.0,
                masks=masks,
                final_mask=masks[-1],
                rewind_state=KeptState(folder.load_rewind_point(tickets[0])),
                trainings=results["trainings"],
                run_folder=None if keeping.run_folder is None else str(keeping.run_folder),
                **{name: results[name] for name in ("plan", "environments", "unidentified", "looks", "records")},
            )
    except BaseException:
        load_clean_state(subject.model, subject.start)  # so that the same call, on the same model, can go on
        raise


def _list_control_levels(asked: Sequence[int] | str, num_levels: int) -> tuple[int, ...]:
    if asked == "none" or num_levels == 0:
        return ()
    if asked == "last":
        return (num_levels,)
    if isinstance(asked, str):
        raise ValueError(f"control_levels must be 'last', 'none' or numbers of rounds from 1, but got {asked!r}")
    return tuple(sorted(set(asked)))

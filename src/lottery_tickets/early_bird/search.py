"""Early-bird tickets: train until the mask that pruning would draw no longer changes, and draw it then."""

import logging
from collections.abc import Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from torch import nn

from lottery_tickets._core.checks import check_count, take_options
from lottery_tickets._core.identity.callers import identify_given
from lottery_tickets._core.loggers import Logger
from lottery_tickets._core.memory.asking import ask_before_early_bird
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices
from lottery_tickets._core.reading import naming
from lottery_tickets._core.records import recorded
from lottery_tickets._core.sharding.data_parallel import find_together
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.states import copy_state, hash_state, load_clean_state
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets._core.training.steps_done import telling_steps_to
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.early_bird.check_times import CheckSteps, CheckTimes
from lottery_tickets.early_bird.convergence import RATE_ADVICE, ConvergenceRule
from lottery_tickets.early_bird.folder import EarlyBirdFolder, SavedCheck
from lottery_tickets.early_bird.history import METHODS
from lottery_tickets.early_bird.probe import Probe
from lottery_tickets.early_bird.progress import EarlyBirdBar
from lottery_tickets.early_bird.ticket import draw_channels
from lottery_tickets.early_bird.trainers import CallersTrainer, DefaultTrainer, Trainer
from lottery_tickets.early_bird.watcher import EarlyBirdResults, EarlyBirdWatcher, try_probe

logger = logging.getLogger(__name__)

PUBLISHED_L1: Final = 1e-4  # on the scales of batch norm, in the code of You et al.


@recorded("early-bird")
def compute_early_bird_tickets(  # noqa: PLR0917 - promised by position, tests/test_contract.py
    model: nn.Module,
    dataloader: Iterable[Any],
    trainer_fn: TrainerFunction | None = None,
    max_epochs: int = 50,
    check_interval: int = 5,
    target_sparsity: float = 0.5,
    convergence_threshold: float = ConvergenceRule.convergence_threshold,
    stability_window: int = ConvergenceRule.stability_window,
    use_magnitude_ranking: bool = True,  # noqa: FBT001, FBT002 - promised by position, tests/test_contract.py
    max_batch_size: int | None = TrainerSettings.max_batch_size,
    learning_rate: float = TrainerSettings.learning_rate,
    use_sgd: bool = TrainerSettings.use_sgd,  # noqa: FBT001 - promised by position, tests/test_contract.py
    *,
    rule: ConvergenceRule | None = None,
    training: TrainerSettings | None = None,
    check_steps: CheckSteps | None = None,
    max_steps: int | None = None,
    scope: str = "global",
    channels: bool = False,
    include: Choices | None = None,
    exclude: Choices | None = None,
    loss_fn: LossFunction | None = None,
    seed: int = 42,
    run_folder: str | Path | None = None,
    accept_changed_environment: bool = False,
    trainer_id: str | None = None,
    data_id: str | None = None,
    progress: bool = False,
    probe: Probe | Iterable[Any] | None = None,
    logger: Logger | Iterable[Logger] | None = None,
    path: str | Path | None = None,  # @recorded writes there
) -> EarlyBirdResults:
    """Trains a model until its ticket has converged, and returns the ticket with the evidence for it.

    The model is trained in place and left as it is at the last check, with no gradients; the starting weights are in
    the result. What "converged" means, and why stability alone does not count, stands in
    `detect_early_bird_convergence`.

    The default trainer is SGD whose step happens inside the backward pass: each gradient is used and freed before the
    next exists, and there is no optimizer state. Weights in bfloat16 are rounded stochastically, because at such
    learning rates nearly every plain update rounds to nothing. It cannot accumulate gradients: a batch that
    `max_batch_size` splits makes several steps, each with its share of the learning rate.

    A sharded model is trained by all its processes together (docs/howto/sharded-models.md), one under
    `DistributedDataParallel` by AdamW or a `trainer_fn`; the losses are means over them.

    Args:
        model: Any model; its weights now are theta_0.
        dataloader: Batches, see the three ways a model can be driven in `compute_loss`; iterated anew each epoch.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)` in place of the default trainer; trains in
            place, or returns a model whose weights are then taken over.
        max_epochs: Epochs at most.
        check_interval: Epochs from one check to the next. The last check is at `max_epochs` at the latest.
        target_sparsity: Of the ticket, in [0, 1]. 0.7 for classification, 0.5 for language modelling and 0.3 for
            fine-tuning are usual.
        convergence_threshold: See `ConvergenceRule`.
        stability_window: See `ConvergenceRule`.
        use_magnitude_ranking: Whether the rule's method is "magnitude_ranking"; if not, it is "mask_distance", as
            published.
        max_batch_size: See `TrainerSettings`; also of the batches that a `trainer_fn` gets.
        learning_rate: See `TrainerSettings`. The default is for fine-tuning: fresh weights hardly move by it, and the
            verdict is then "trivially stable", with what to try.
        use_sgd: See `TrainerSettings`.
        rule: When the ticket counts as converged; takes the place of `convergence_threshold`, `stability_window` and
            `use_magnitude_ranking`.
        training: How the default trainer trains; takes the place of `max_batch_size`, `learning_rate` and `use_sgd`.
        check_steps: Checks by step instead of epoch: every so many, at these steps, or "log".
        max_steps: Steps at most, with `check_steps`; by default those of `max_epochs`.
        scope: What magnitudes are compared within for the mask, see `create_magnitude_mask`.
        channels: Whether to rank the scales of batch norm, each for its channel, as published. The ticket is then a
            mask of whole channels (`create_unit_mask`), which `shrink` makes a smaller network of; where they cannot be
            found (extra `shrink`), a mask over the scales, and a logged warning says why.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        seed: Of data order, dropout, rounding, the probe and the sample that is followed.
        run_folder: Keeps the last check; the same call goes on from it after an interruption, to the same bits, and
            one with more epochs or steps goes on further.
        accept_changed_environment: Whether to go on there with other versions, another machine or another number of
            threads; equal bits are then no longer claimed.
        trainer_id: A name for the trainer, where its code does not say what it does; a run folder is only continued
            with the trainer, the data and the architecture that it was begun with.
        data_id: A name for the data, where its samples cannot be compared.
        progress: Whether to show a bar with the time that the training that is allowed takes at most.
        probe: What learning is measured on: a `Probe`, or its batches, which are then taken for held out. By default a
            fixed sample of `dataloader`. It is trained on, so the data must show at the start that it can be learnt
            rather than memorised, which held-out samples need not; hold some out where you can.
        logger: Told the figures of each check: anything with `log(values, step)`, or several, such as those of
            `lottery_tickets.integrations` for TensorBoard and Weights & Biases. It changes nothing.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        `method` ("magnitude_ranking" or "mask_distance"), `target_sparsity`, `convergence_threshold`; `converged`,
        `convergence_epoch` (None when not), `verdict` ("converged", "still changing", "trivially stable", "stable,
        learning not shown", "diverged"), `reason`; `checkpoints`, see `EarlyBirdCheckpoint`; `final_rankings`, by name
        uint16 tensors, the rank of each magnitude among all in 65,536ths; `final_mask`, the `Mask`; `starting_weights`,
        theta_0 by name on the CPU, what a ticket is trained from; `settings`.

    Raises:
        TypeError: When `dataloader` is an iterator, which is used up after one epoch, the model refuses a batch, or an
            option is given both by itself and in `rule` or `training`.
        ValueError: When an argument is out of range, the data is empty, too many losses are not finite, `trainer_fn`
            returns another model, or `run_folder` belongs to another run or was altered.
        OSError: When a file of `run_folder` cannot be read or written.
        ModuleNotFoundError: When `adamw_bits` is 8 and bitsandbytes is not installed.

    Warns:
        UserWarning: When the ticket loses all weights of a layer.

    References:
        You et al., arXiv:1909.11957 (mask distance, queue, batch-norm scales). Rank correlation of weights is another
        criterion, not theirs.

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> data = [(torch.randn(16, 8), torch.randint(2, (16,)))]
        >>> found = compute_early_bird_tickets(model, data, max_epochs=4, check_interval=1)
        >>> found["verdict"], len(found["checkpoints"]), found["final_mask"].sparsity
        ('trivially stable', 4, 0.5)
    """
    single_rule = ConvergenceRule(METHODS[not use_magnitude_ranking], convergence_threshold, stability_window)
    rule = take_options("rule", rule, single_rule, ConvergenceRule())
    single_training = TrainerSettings(learning_rate, use_sgd, max_batch_size=max_batch_size)
    training = take_options("training", training, single_training, TrainerSettings())
    if training.norm_l1 is None:
        training = replace(training, norm_l1=PUBLISHED_L1 if channels else 0.0)
    together = _find_together(model, run_folder, path, channels=channels)
    limit, times = check_count("max_epochs", max_epochs), CheckTimes(check_count("check_interval", check_interval))
    if check_steps is not None:
        limit, times = _find_last_step(dataloader, limit, max_steps), CheckTimes(check_steps)
    ranked: dict[str, Any] = {"scope": scope, "channels": channels, "include": include, "exclude": exclude}
    choices = {} if channels else {"include": include, "exclude": exclude}
    ask_before_early_bird(model, training if trainer_fn is None else None, choices)
    watcher = EarlyBirdWatcher(model, target_sparsity=target_sparsity, rule=rule, seed=seed, logger=logger, **ranked)
    _give_probe(watcher, model, probe, _sample_training(dataloader, loss_fn, training))
    by_step = check_steps is not None
    trainer = _choose_trainer(model, dataloader, trainer_fn, training, by_step=by_step, loss_fn=loss_fn, seed=seed)
    folder = None
    if run_folder is not None:
        given: dict[str, Any] = {"model": model, "trainer_fn": trainer_fn, "data": dataloader}
        identities = identify_given(**given, trainer_id=trainer_id, data_id=data_id, functions={"loss_fn": loss_fn})
        folder = EarlyBirdFolder(Path(run_folder), identities, accept_changed_environment)
    found = _run(model, watcher, trainer, times, limit=limit, folder=folder, progress=progress and not together.place)
    if channels:
        drawn: dict[str, Any] = {"sparsity": target_sparsity, "scope": scope, "seed": seed}
        found["final_mask"] = draw_channels(model, found["final_mask"], dataloader, **drawn)
    return found


def _find_together(
    model: nn.Module, run_folder: str | Path | None, path: str | Path | None, *, channels: bool
) -> Together:
    """Returns the processes that train a model; raises where several cannot: files of their own, units of shards."""
    together = find_together(model)
    if channels:
        refuse_sharded(model, "tickets of channels")
    for name, given in (("run_folder", run_folder), ("path", path)):
        if given is not None and together is not ALONE:
            raise ValueError(
                f"{name}= must be None where {together.num_processes} processes train one model, but is "
                f"{str(given)!r}; keep a watch of your own loop by WatchState"
            )
    return together


def _sample_training(dataloader: Iterable[Any], loss_fn: LossFunction | None, training: TrainerSettings) -> Probe:
    size = None if training.max_batch_size is None else max(2, training.max_batch_size)
    return Probe(dataloader, loss_fn, held_out=False, max_batch_size=size)


def _give_probe(
    watcher: EarlyBirdWatcher, model: nn.Module, probe: Probe | Iterable[Any] | None, default: Probe
) -> None:
    """Gives a watcher the caller's probe, or a sample of what is trained on where that can be measured."""
    if probe is None:
        try_probe(watcher, model, default)
    else:
        watcher.take_probe(model, probe if isinstance(probe, Probe) else replace(default, batches=probe, held_out=True))


def _choose_trainer(
    model: nn.Module,
    dataloader: Iterable[Any],
    trainer_fn: TrainerFunction | None,
    training: TrainerSettings,
    *,
    by_step: bool,
    loss_fn: LossFunction | None,
    seed: int,
) -> Trainer:
    if trainer_fn is None:
        return DefaultTrainer(model, dataloader, training, by_step=by_step, loss_fn=loss_fn, seed=seed)
    if by_step:
        raise ValueError(
            "check_steps needs the default trainer, because a trainer_fn trains whole epochs; use check_interval, or "
            "watch your own loop with EarlyBirdWatcher"
        )
    size = training.max_batch_size
    return CallersTrainer(model, dataloader, trainer_fn, max_batch_size=size, loss_fn=loss_fn, seed=seed)


def _run(
    model: nn.Module,
    watcher: EarlyBirdWatcher,
    trainer: Trainer,
    times: CheckTimes,
    *,
    limit: int,
    folder: EarlyBirdFolder | None,
    progress: bool,
) -> EarlyBirdResults:
    start = hash_state(watcher.starting_weights)
    settings = {**watcher.describe(), **trainer.describe(), "checks": times.steps, "start_sha256": start}
    opened: AbstractContextManager[SavedCheck | None] = nullcontext(None)
    if folder is not None:
        opened = folder.opened(settings, watcher.starting_weights)
    try:
        with opened as saved:
            if saved is not None:
                with naming(folder.path if folder else "the run", "be gone on with from its last check"):
                    _continue(model, watcher, trainer, saved)
            with EarlyBirdBar(trainer, limit, progress=progress) as bar, telling_steps_to(bar.count):
                while not watcher.should_stop and trainer.position < limit:
                    stop = times.after(trainer.position)
                    if stop is None:
                        break
                    training = trainer.train_to(min(stop, limit))
                    watcher.check(model, trainer.num_steps, training)
                    bar.take(len(watcher.checkpoints))
                    if folder is not None:
                        folder.save(
                            SavedCheck(copy_state(model), watcher.state(), trainer.state(), watcher.checkpoints)
                        )
    except BaseException:
        load_clean_state(model, watcher.starting_weights)  # so that the same call, on the same model, can go on
        raise
    finally:
        model.zero_grad(set_to_none=True)
    found = watcher.results()
    if RATE_ADVICE in found["reason"]:
        logger.warning("%s: %s", found["verdict"], RATE_ADVICE)
    return {**found, "settings": settings}


def _continue(model: nn.Module, watcher: EarlyBirdWatcher, trainer: Trainer, saved: SavedCheck) -> None:
    load_clean_state(model, saved.model)
    trainer.load_state(saved.trainer)
    watcher.load_state(saved.watch, saved.checkpoints, trainer.num_steps or 0)


def _find_last_step(dataloader: Iterable[Any], max_epochs: int, max_steps: int | None) -> int:
    if max_steps is not None:
        return check_count("max_steps", max_steps)
    length = len(dataloader) if isinstance(dataloader, Sized) else None
    if length is None:
        raise ValueError("max_steps must be given with check_steps, because the dataloader does not know its length")
    return max_epochs * max(1, length)

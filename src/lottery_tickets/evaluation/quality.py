"""What a ticket is worth: post-hoc, as the trained model pruned; and trained again beside its controls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from lottery_tickets._core.checks import check_count
from lottery_tickets._core.loggers import Logger
from lottery_tickets._core.measuring.performance import (
    Measurement,
    MetricFunction,
    MetricName,
    Performance,
    PerformanceFigures,
)
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.records import recorded
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.evaluation.performance import measure_model
from lottery_tickets.experiments.elsewhere.tasks import Executor
from lottery_tickets.experiments.keeping import Keeping
from lottery_tickets.experiments.plan import CONTROLS, Branch
from lottery_tickets.experiments.retraining import Retraining
from lottery_tickets.masks.mask import Mask, as_mask


class TicketQuality(TypedDict):
    """What `compute_lottery_ticket_quality` returns.

    Attributes:
        kind: "post-hoc": the model as it is, pruned and not retrained; "post-hoc and retrained" where `retrained` has
            the other quality beside it. What follows is post-hoc in both.
        metric: What performance is measured by.
        higher_is_better: Whether more of it is better.
        performance_retention: The ticket's performance over the baseline's, or the other way round where less is
            better: 1 is all of it. None where the ratio has no meaning.
        baseline_performance: The metric of the model as it is.
        ticket_performance: The metric under the mask; None when it is not finite.
        baseline_loss: Mean loss of the model as it is.
        ticket_loss: Mean loss under the mask; None when it is not finite.
        baseline: All figures of the model as it is.
        ticket: All figures under the mask.
        sparsity: The share of weights that the mask removes.
        layer_sparsities: Of each layer by name.
        retrained: Without a `trainer_fn` None; else `kind` ("retrained"), `trainings`, rows of the dense network (level
            0), the ticket and its controls, to be judged by claims; `looks`, `num_epochs`, `num_replicates`,
            `starting_sha256`, `split`, `run_folder`.
    """

    kind: str
    metric: str
    higher_is_better: bool
    performance_retention: float | None
    baseline_performance: float
    ticket_performance: float | None
    baseline_loss: float
    ticket_loss: float | None
    baseline: PerformanceFigures
    ticket: PerformanceFigures
    sparsity: float
    layer_sparsities: dict[str, float]
    retrained: dict[str, Any] | None


@recorded("quality")
def compute_lottery_ticket_quality(
    model: nn.Module | CheckpointWeights,
    mask: Mapping[str, Tensor],
    dataloader: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    seed: int = 42,
    trainer_fn: TrainerFunction | None = None,
    num_epochs: int | None = None,
    train_dataloader: Iterable[Any] | None = None,
    starting_weights: Mapping[str, Tensor] | None = None,
    controls: Sequence[Branch] | None = None,
    num_replicates: int | None = None,
    initialise_fn: Callable[[nn.Module], object] | None = None,
    run_folder: str | Path | None = None,
    accept_changed_environment: bool = False,
    trainer_id: str | None = None,
    data_id: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    logger: Logger | Iterable[Logger] | None = None,
    executor: Executor | None = None,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> TicketQuality:
    """Returns how well a model does under a mask, beside itself as it is; with a `trainer_fn` also retrained.

    Two qualities, named apart. *Post-hoc*: the model's present weights with the mask on them, not retrained. It says
    what pruning costs now, and nothing about a ticket. *Retrained*: the ticket is trained from its starting weights,
    beside the dense network and the controls on the same budget; rows for intervals and claims, which
    `statistical_report_generator.claims` makes. Its replicates differ in data order and in the draws of the controls,
    not in the starting weights: they speak of this one ticket.

    Post-hoc measuring leaves the model as it is, and takes one layer of memory beyond a forward pass. Retraining trains
    the model in place and puts everything back, from a copy on the CPU, also when it raises.

    Args:
        model: A trained model, or a `CheckpointWeights` of one, which is run layer by layer (see `compute_performance`)
            and not retrained; the files are read twice.
        mask: By parameter name, True where a weight is kept.
        dataloader: What to measure on; iterated anew for each measurement.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        metric: "auto" (perplexity for language models, accuracy for other classification, else loss), "accuracy",
            "perplexity", "loss", or a function of the model and the data loader that returns a number.
        higher_is_better: Whether more is better, for a function.
        seed: Of a shuffling data loader, and of all that is drawn.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`; trains in place, or returns a model whose
            weights are then taken over. Pruned weights stay zero whatever it does. The arguments below go with it.
        num_epochs: What every branch is trained for; 1 when None.
        train_dataloader: What they are trained on; `dataloader` when None, and the result then says "train".
        starting_weights: theta_0 or theta_k of the ticket, by the names of `model.state_dict()`; the model's present
            weights when None.
        controls: Of "reinitialised", "shuffled" and "random"; all three when None.
        num_replicates: Repetitions with other data orders and draws, 1 when None. Intervals and claims need at least 3.
        initialise_fn: Draws fresh weights of a model in place; by default each module's `reset_parameters`.
        run_folder: Keeps every training: the same call goes on after an interruption, and adds what is missing to more
            replicates or controls. None uses a temporary folder.
        accept_changed_environment: Whether to go on there with other versions, machine or number of threads.
        trainer_id: A name for the trainer, where its code does not say what it does; a run folder is only continued
            with the trainer, the data and the architecture that it was begun with.
        data_id: A name for the data, of training and of measuring, where its samples cannot be compared.
        dtype: What the weights of a checkpoint are converted to; None for what its configuration says.
        device: Where a checkpoint is run; the CPU when None.
        progress: Whether to show a bar.
        logger: Told the figures of each training when it has ended: anything with `log(values, step)`, or several, such
            as those of `lottery_tickets.integrations` for TensorBoard and Weights & Biases. It changes nothing.
        executor: Trains the replicates elsewhere: a `concurrent.futures.Executor`, a Dask client, or a `SlurmExecutor`
            of `lottery_tickets.integrations.slurm`; see docs/howto/cluster.md. None trains here. Workers train on one
            thread and give the same bits as one thread here. They must see `run_folder` at the same path.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        See `TicketQuality`.

    Raises:
        TypeError: When `dataloader` is an iterator, or the model refuses a batch.
        ValueError: When the mask does not fit the model, the data is empty, the model's own loss is not finite, the
            metric has no meaning for the data, or retraining cannot be done as asked.
        OSError: When `path`, or a file of `run_folder`, cannot be read or written.

    References:
        Frankle & Carbin, arXiv:1803.03635 (tickets and their reinitialised control); Frankle et al., arXiv:1912.05671
        (matching); Su et al., arXiv:2009.11094 (random tickets).

    Examples:
        >>> import torch
        >>> model, data = nn.Linear(4, 3), [(torch.randn(8, 4), torch.randint(3, (8,)))]
        >>> quality = compute_lottery_ticket_quality(model, {"weight": torch.ones(3, 4)}, data)
        >>> quality["ticket_loss"] == quality["baseline_loss"], quality["metric"], quality["kind"]
        (True, 'accuracy', 'post-hoc')
    """
    checked, measurement = as_mask(mask), Measurement(loss_fn, metric, higher_is_better)
    options = {
        "num_epochs": num_epochs,
        "train_dataloader": train_dataloader,
        "starting_weights": starting_weights,
        "controls": controls,
        "num_replicates": num_replicates,
        "initialise_fn": initialise_fn,
    }
    keeping = Keeping(run_folder, accept_changed_environment, trainer_id, data_id, progress, logger, executor)
    retraining = _plan_retraining(model, trainer_fn, seed, options, keeping)
    baseline = measure_model(model, dataloader, measurement, seed=seed, dtype=dtype, device=device)
    performance, loss = _check_finite(baseline)
    ticket = measure_model(model, dataloader, measurement, mask=checked, seed=seed, dtype=dtype, device=device)
    return {
        "kind": "post-hoc" if retraining is None else "post-hoc and retrained",
        "metric": baseline.metric,
        "higher_is_better": baseline.higher_is_better,
        "performance_retention": ticket.retain(baseline),
        "baseline_performance": performance,
        "ticket_performance": ticket.value,
        "baseline_loss": loss,
        "ticket_loss": ticket.figures["loss"],
        "baseline": baseline.figures,
        "ticket": ticket.figures,
        "sparsity": checked.sparsity,
        "layer_sparsities": checked.layer_sparsity(),
        "retrained": _retrain(retraining, model, checked, dataloader, measurement),
    }


def _check_finite(baseline: Performance) -> tuple[float, float]:
    """Returns the metric and the loss of the model as it is."""
    if baseline.value is None or baseline.figures["loss"] is None:
        raise ValueError("the model's own loss must be finite, but is NaN or infinite on this data; did it diverge?")
    return baseline.value, baseline.figures["loss"]


def _retrain(
    retraining: Retraining | None, model: object, mask: Mask, dataloader: Iterable[Any], measurement: Measurement
) -> dict[str, Any] | None:
    if retraining is None or not isinstance(model, nn.Module):
        return None
    return {"kind": "retrained", **retraining.run(model, mask, dataloader, measurement)}


def _plan_retraining(
    model: object,
    trainer_fn: Any,  # noqa: ANN401 - checked here
    seed: int,
    options: dict[str, Any],
    keeping: Keeping,
) -> Retraining | None:
    options = {name: value for name, value in options.items() if value is not None}
    if trainer_fn is None:
        kept = {name for name, value in vars(keeping).items() if value is not None and value is not False}
        if unused := sorted(options.keys() | kept):
            raise ValueError(
                f"{', '.join(unused)} must come with a trainer_fn, which trains the ticket again; pass one"
            )
        return None
    if isinstance(model, CheckpointWeights):
        raise TypeError("a checkpoint cannot be trained, so there must be no trainer_fn beside one; load the model")
    if not callable(trainer_fn):
        raise TypeError(f"trainer_fn must be a function of model, dataloader and epochs, got {trainer_fn!r}")
    options["num_epochs"] = check_count("num_epochs", options.get("num_epochs", 1))
    options["num_replicates"] = check_count("num_replicates", options.get("num_replicates", 1))
    controls = options.get("controls", CONTROLS)
    if isinstance(controls, str) or not set(controls) <= set(CONTROLS):
        raise ValueError(f"controls must be among {', '.join(CONTROLS)}, got {controls!r}")
    return Retraining(trainer_fn, seed=seed, keeping=keeping, **options)

"""Linear mode connectivity: do two trainings that differ in their noise alone end in one linearly connected minimum?"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, final

from torch import Tensor, nn

from lottery_tickets._core.checks import check_count, check_restartable, check_share
from lottery_tickets._core.measuring.interpolation import Line, has_batch_norm
from lottery_tickets._core.measuring.performance import Measurement, MetricFunction, Performance
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.records import recorded
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.connectivity.instability import PathFigures, summarise_path
from lottery_tickets.connectivity.pairs import PairTraining
from lottery_tickets.experiments.elsewhere.tasks import Executor
from lottery_tickets.experiments.keeping import Keeping
from lottery_tickets.masks.mask import as_mask

FEWEST_POINTS: Final = 3  # the ends and one between


class PairFigures(PathFigures):
    """What was found on the line between two networks, and how they were trained.

    Attributes:
        start_sha256: Hash of the weights that both copies were trained from; None for states that were handed in.
        seeds: Of the data order of each copy, and of the training that they share; None for states that were handed in.
    """

    start_sha256: str | None
    seeds: dict[str, int] | None


class ConnectivityResults(TypedDict):
    """What `compute_linear_connectivity` returns.

    Attributes:
        instability: Mean over the pairs; None where no accuracy exists.
        instabilities: One a pair.
        stable: Whether the mean is below the threshold.
        barrier: Mean over the pairs; None when some pair has none.
        barriers: One a pair.
        barrier_over_line: As `barrier`.
        barriers_over_line: One a pair.
        pairs: The pairs, see `PairFigures`.
        settings: `threshold`, `num_points`, `num_replicates`, `seed`, `trained` (whether copies were trained here),
            `num_epochs` and `rewind_epoch` (None when not), `sparsity` of the mask that was held (None without one),
            `recomputed_statistics` (whether there is batch norm).
    """

    instability: float | None
    instabilities: list[float | None]
    stable: bool | None
    barrier: float | None
    barriers: list[float | None]
    barrier_over_line: float | None
    barriers_over_line: list[float | None]
    pairs: list[PairFigures]
    settings: dict[str, Any]


@recorded("lines")
def compute_linear_connectivity(
    model: nn.Module,
    dataloader: Iterable[Any],
    first: Mapping[str, Tensor] | None = None,
    second: Mapping[str, Tensor] | None = None,
    *,
    trainer_fn: TrainerFunction | None = None,
    num_epochs: int = 10,
    rewind_epoch: int = 0,
    mask: Mapping[str, Tensor] | None = None,
    num_replicates: int = 1,
    train_dataloader: Iterable[Any] | None = None,
    statistics_dataloader: Iterable[Any] | None = None,
    num_points: int = 30,
    threshold: float = 0.02,
    metric: MetricFunction | None = None,
    loss_fn: LossFunction | None = None,
    seed: int = 42,
    run_folder: str | Path | None = None,
    accept_changed_environment: bool = False,
    trainer_id: str | None = None,
    data_id: str | None = None,
    progress: bool = False,
    executor: Executor | None = None,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> ConnectivityResults:
    """Returns the error along the straight line between two networks, and the instability that follows from it.

    After Frankle et al. 2020 (arXiv 1912.05671, sections 2 and 3): the *instability* is the largest error on the line
    minus the mean error of its ends, and below 2 % two networks count as linearly connected. With `first` and `second`
    the line is that between two states. With `trainer_fn` this function *trains*: from the model's present weights,
    twice, in runs that differ in the order of the data alone (and in what else the trainer draws from the global
    generators: augmentation, dropout). That says whether training is stable to its own noise from these weights on.
    The model is trained in place and put back; trained states go to the run folder. Memory: the model, one copy of it
    on the CPU, and two states on the CPU.

    The error is 1 - accuracy; of language models, 1 - the share of next tokens that are predicted. Dropout is off.
    Running statistics of batch norm, which fit no network between the ends, are computed anew at every point, the ends
    included: by one pass over `statistics_dataloader`, or over `dataloader` where there is none.

    The model's own weights, buffers, gradients, modes and hooks, the generators and those of the loaders are as before
    when this returns or raises, as long as the trainer trains the model it is given.

    Args:
        model: Computes with the states, or is what copies are made of.
        dataloader: What errors and losses are measured on, see `compute_loss`; iterated anew for each point.
        first: The state at alpha 0, such as `model.state_dict()`.
        second: The state at alpha 1.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`; trains in place or returns a model.
        num_epochs: Epochs of a whole training, at least 1.
        rewind_epoch: k, from 0 to `num_epochs` - 1: epochs that both copies share before they part. The trainer is
            called anew where they part, so its optimizer starts anew.
        mask: What the copies hold pruned once they part, by parameter name; the shared epochs are dense.
        num_replicates: Pairs to train, each with its own data orders.
        train_dataloader: What copies are trained on; `dataloader` when None. It must shuffle, by the global generators
            or its own.
        statistics_dataloader: What batch-norm statistics are computed from; training data, in training-sized batches,
            is what they usually come from.
        num_points: Alphas, evenly spaced with the ends included; at least 3.
        threshold: Instability below which a pair is stable, in [0, 1].
        metric: `metric(model, dataloader)` -> accuracy in [0, 1], where the loss does not tell it.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        seed: Decides the data orders.
        run_folder: Keeps every training; the same call continues it after an interruption, and a call with more
            replicates adds what is missing. None uses a temporary folder.
        accept_changed_environment: Whether to go on in a run folder with other versions, another machine or another
            number of threads.
        trainer_id: A name for the trainer, where its code does not say what it does; a run folder is only continued
            with the trainer, the data and the architecture that it was begun with.
        data_id: A name for the data, of training and of evaluation, where its samples cannot be compared.
        progress: Whether to show bars.
        executor: Trains the replicates elsewhere: a `concurrent.futures.Executor`, a Dask client, or a `SlurmExecutor`
            of `lottery_tickets.integrations.slurm`; see docs/howto/cluster.md. None trains here. Workers train on one
            thread and give the same bits as one thread here. They must see `run_folder` at the same path.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        `instability`, `stable`, `barrier`, `barrier_over_line` (means over the pairs), `instabilities`, `barriers`,
        `barriers_over_line` (one a pair), `pairs` (with `alphas`, `errors`, `losses`, the figures of both ends) and
        `settings`; JSON-able. Points that are not finite are None, are counted, and count as the worst.

    Raises:
        TypeError: When a loader is an iterator, or the model refuses a batch.
        ValueError: When an argument is out of range, a state does not fit or is not finite, the copies do not differ,
            the loss of an end is not finite, or the run folder belongs to something else or was altered.
        OSError: When a file of `run_folder`, or `path`, cannot be read or written.

    Examples:
        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]))]
        >>> first, second = ({"weight": torch.tensor(w)} for w in ([[9.0], [1.0]], [[1.0], [0.0]]))
        >>> found = compute_linear_connectivity(model, data, first, second)
        >>> found["instability"], found["stable"], len(found["pairs"][0]["alphas"])
        (0.0, True, 30)
    """
    line = _LineMeasurement(
        dataloader, statistics_dataloader, Measurement(loss_fn, metric or "auto"), num_points, threshold, seed
    )
    settings = {
        "threshold": line.threshold,
        "num_points": line.num_points,
        "num_replicates": num_replicates,
        "seed": seed,
        "trained": trainer_fn is not None,
        "recomputed_statistics": has_batch_norm(model),
    }
    if trainer_fn is None:
        for_training = (mask, train_dataloader, run_folder, executor)
        is_for_training = any(value is not None for value in for_training)
        _check_states(first, second, is_for_training=is_for_training or num_replicates != 1 or rewind_epoch != 0)
        pairs = [line.measure(model, first, second, progress=progress)]
        return _sum_up(pairs, {**settings, "num_epochs": None, "rewind_epoch": None, "sparsity": None})
    if first is not None or second is not None:
        raise ValueError("with a trainer_fn there must be no first and second, which it trains; leave one of them out")
    training = PairTraining(
        trainer_fn,
        num_epochs,
        rewind_epoch,
        None if mask is None else as_mask(mask),
        num_replicates,
        train_dataloader,
        seed,
        Keeping(run_folder, accept_changed_environment, trainer_id, data_id, progress, executor=executor),
    )
    pairs = line.measure_trained(model, training)
    sparsity = None if training.mask is None else training.mask.sparsity
    return _sum_up(pairs, {**settings, "num_epochs": num_epochs, "rewind_epoch": rewind_epoch, "sparsity": sparsity})


def _check_states(first: object, second: object, *, is_for_training: bool) -> None:
    if first is None or second is None or is_for_training:
        raise ValueError(
            "there must be two states, first and second, or a trainer_fn, which alone goes with mask, rewind_epoch, "
            "num_replicates, train_dataloader, run_folder and executor; pass model.state_dict() of two trained "
            "networks, or a trainer_fn"
        )


@final
@dataclass(frozen=True)
class _LineMeasurement:
    """How the line between two states is measured: where, on what, and with which seed."""

    dataloader: Iterable[Any]
    statistics_dataloader: Iterable[Any] | None
    measurement: Measurement
    num_points: int
    threshold: float
    seed: int

    def __post_init__(self) -> None:
        allowed = f"an integer of at least {FEWEST_POINTS}, the ends and one between"
        if check_count("num_points", self.num_points, allowed) < FEWEST_POINTS:
            raise ValueError(f"num_points must be {allowed}, got {self.num_points!r}")
        check_share("threshold", self.threshold)
        check_restartable(self.dataloader)

    def measure(self, model: nn.Module, first: object, second: object, *, progress: bool) -> PairFigures:
        for name, state in (("first", first), ("second", second)):
            if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
                raise TypeError(f"{name} must be a state dict of tensors by name, got a {type(state).__name__}")
        alphas = [point / (self.num_points - 1) for point in range(self.num_points)]
        found = Line(model, first, second).measure(  # type: ignore[arg-type] # checked in the loop above
            alphas,
            self.dataloader,
            self.measurement,
            statistics_dataloader=self.statistics_dataloader,
            progress=progress,
            seed=self.seed,
        )
        losses = [performance.figures["loss"] for performance in found]
        accuracies = [self._find_accuracy(performance) for performance in found]
        path = summarise_path(alphas, losses, accuracies, self.threshold)
        return {**path, "start_sha256": None, "seeds": None}

    def measure_trained(self, model: nn.Module, training: PairTraining) -> list[PairFigures]:
        with training.trained(model, self.dataloader, self.measurement) as pairs:
            return [
                {
                    **self.measure(model, pair.first, pair.second, progress=training.keeping.progress),
                    "start_sha256": pair.start_sha256,
                    "seeds": pair.seeds,
                }
                for pair in pairs
            ]

    def _find_accuracy(self, performance: Performance) -> float | None:
        if not callable(self.measurement.metric):
            return performance.figures["accuracy"]
        return None if performance.value is None else check_share("the accuracy that metric returns", performance.value)


def _sum_up(pairs: list[PairFigures], settings: dict[str, Any]) -> ConnectivityResults:
    instabilities = [pair["instability"] for pair in pairs]
    barriers = [pair["barrier"] for pair in pairs]
    over_line = [pair["barrier_over_line"] for pair in pairs]
    instability = _average(instabilities)
    return {
        "instability": instability,
        "instabilities": instabilities,
        "stable": None if instability is None else instability < settings["threshold"],
        "barrier": _average(barriers),
        "barriers": barriers,
        "barrier_over_line": _average(over_line),
        "barriers_over_line": over_line,
        "pairs": pairs,
        "settings": settings,
    }


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None

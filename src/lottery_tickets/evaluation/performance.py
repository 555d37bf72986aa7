"""How well a model does, as it is or under a mask: a model in memory, or a checkpoint that is streamed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.measuring.performance import (
    Measurement,
    MetricFunction,
    MetricName,
    Performance,
    measure,
)
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.records import recorded
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.checkpoints.decoder import StreamedDecoder
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask, as_mask


class ModelPerformance(TypedDict):
    """What `compute_performance` returns.

    Attributes:
        metric: What performance is measured by.
        higher_is_better: Whether more of it is better.
        performance: The metric; None when it is not finite.
        loss: Mean over all predictions, in nats for classification; None when it is not finite.
        accuracy: Share of right predictions, of tokens for language models; None where there is nothing to count.
        perplexity: exp(loss), for classification; None otherwise, or when it is not finite.
        num_predictions: Labels that were predicted; samples where that is not known.
    """

    metric: str
    higher_is_better: bool
    performance: float | None
    loss: float | None
    accuracy: float | None
    perplexity: float | None
    num_predictions: int


@recorded("performance")
def compute_performance(
    model: nn.Module | CheckpointWeights,
    dataloader: Iterable[Any],
    *,
    mask: Mapping[str, Tensor] | None = None,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> ModelPerformance:
    """Returns loss, accuracy and perplexity of a model on data, as it is or under a mask; nothing is trained.

    A `CheckpointWeights` need not fit into memory: its decoder is run layer by layer, on all batches at once, and gives
    the same bits as the model that `from_pretrained` loads in the same dtype. In memory are one layer, the embeddings,
    the head at the end, and for each batch the output of a layer (samples x length x width). The files are read once.

    Args:
        model: A model, which comes back bit for bit as it was, or a `CheckpointWeights` of a causal language model that
            transformers knows.
        dataloader: What to measure on. For a checkpoint all batches are held in memory.
        mask: By parameter name, True where a weight is kept.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds; of a checkpoint it calls the
            model once.
        metric: "auto" (perplexity for language models, accuracy for other classification, else loss), "accuracy",
            "perplexity", "loss", or, for a model in memory, a function of the model and the data loader.
        higher_is_better: Whether more is better, for a function.
        dtype: What the weights of a checkpoint are converted to; None for what its configuration says.
        device: Where a checkpoint is run; the CPU when None.
        seed: Of a shuffling data loader.
        progress: Whether to show a bar of the layers of a checkpoint.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        See `ModelPerformance`.

    Raises:
        OSError: When a file of the checkpoint cannot be read, or `path` cannot be written.
        TypeError: When `dataloader` is an iterator, or the model refuses a batch.
        ValueError: When the mask does not fit the model, the data is empty, the metric has no meaning for it, files and
            configuration are not of one model, or the model cannot be run layer by layer; the message says why.
        ModuleNotFoundError: When a checkpoint is given and transformers is not installed.

    Examples:
        >>> model, data = nn.Linear(4, 3), [(torch.randn(8, 4), torch.arange(8) % 3)]
        >>> found = compute_performance(model, data)
        >>> found["metric"], found["performance"] == found["accuracy"], found["num_predictions"]
        ('accuracy', True, 8)
    """
    checked = None if mask is None else as_mask(mask)
    measurement = Measurement(loss_fn, metric, higher_is_better)
    found = measure_model(
        model, dataloader, measurement, mask=checked, seed=seed, dtype=dtype, device=device, progress=progress
    )
    return {
        "metric": found.metric,
        "higher_is_better": found.higher_is_better,
        "performance": found.value,
        **found.figures,
    }


def measure_model(
    model: nn.Module | CheckpointWeights,
    dataloader: Iterable[Any],
    measurement: Measurement,
    *,
    mask: Mask | None = None,
    seed: int = 42,
    dtype: Any = None,  # noqa: ANN401 - as of `compute_performance`
    device: Any = None,  # noqa: ANN401 - likewise
    progress: bool = False,
) -> Performance:
    """Returns the performance of a model or of a checkpoint, dense or under a mask; see `compute_performance`."""
    if isinstance(model, CheckpointWeights):
        decoder_options = {"mask": mask, "dtype": dtype, "device": torch.device(device or "cpu")}
        return _measure_streamed(model, dataloader, measurement, seed, decoder_options, progress=progress)
    for name, value in (("dtype", dtype), ("device", device)):
        if value is not None:
            raise ValueError(
                f"{name} must be None for a model in memory, which has one, got {value}; convert the model"
            )
    if mask is None:
        return measure(model, dataloader, measurement, seed)
    with masked(model, mask):
        return measure(model, dataloader, measurement, seed)


def _measure_streamed(
    weights: CheckpointWeights,
    dataloader: Iterable[Any],
    measurement: Measurement,
    seed: int,
    options: Mapping[str, Any],
    *,
    progress: bool,
) -> Performance:
    if callable(measurement.metric):
        raise ValueError(
            "the metric of a checkpoint must be a name, because a function may run the model as it likes, and a "
            f"streamed one runs on the data alone; got {measurement.metric!r}: load the model for that"
        )
    check_restartable(dataloader)
    with ordered_by(dataloader, seed):
        batches = list(dataloader)

    def forward(model: nn.Module, batch: object) -> object:
        return compute_loss(model, move_batch(batch, options["device"]), measurement.loss_fn)

    decoder = StreamedDecoder(weights, batches, forward, **options)
    for _ in tqdm(decoder.walk(), total=len(decoder.layers), unit="layer", disable=not progress):
        decoder.carry()
    with decoder.at_the_end() as replay:
        found = measurement(decoder.model, replay)
        if found.figures["loss"] is None:
            decoder.check_end(lambda: measurement(decoder.model, replay).figures["loss"])
    return found

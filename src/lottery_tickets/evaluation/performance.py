"""How well a model does as it is."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from lottery_tickets._core.measuring.performance import Measurement, MetricFunction, MetricName, measure
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.records import recorded


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
    model: nn.Module,
    dataloader: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    seed: int = 42,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> ModelPerformance:
    """Returns how well a model does as it is: dense, or with whatever mask is held on it. It is left as it was.

    Args:
        model: Any model.
        dataloader: What to measure on, see the three ways a model can be driven in `compute_loss`.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        metric: "auto" (perplexity for language models, accuracy for other classification, else loss), "accuracy",
            "perplexity", "loss", or a function of the model and the data loader that returns a number.
        higher_is_better: Whether more is better, for a function.
        seed: Of a shuffling data loader, and of all that is drawn.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        See `ModelPerformance`.

    Raises:
        TypeError: When `dataloader` is an iterator, or the model refuses a batch.
        ValueError: When the data is empty, or the metric has no meaning for it.
        OSError: When `path` cannot be written.

    Examples:
        >>> import torch
        >>> model, data = nn.Linear(4, 3), [(torch.randn(8, 4), torch.arange(8) % 3)]
        >>> found = compute_performance(model, data)
        >>> found["metric"], found["performance"] == found["accuracy"], found["num_predictions"]
        ('accuracy', True, 8)
    """
    found = measure(model, dataloader, Measurement(loss_fn, metric, higher_is_better), seed)
    return {
        "metric": found.metric,
        "higher_is_better": found.higher_is_better,
        "performance": found.value,
        **found.figures,
    }

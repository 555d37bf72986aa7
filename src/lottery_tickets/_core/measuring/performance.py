"""How well a model does on data: loss, accuracy, perplexity or a caller's metric; the model comes back bit for bit.

What a loss averages over, and how many answers are right, is read from the one classification loss that a forward pass
calls: pairs, language models (which shift their labels) and a caller's own loss are counted alike.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Final, Literal, TypedDict, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import count_samples, move_batch
from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.objective import LossFunction, compute_loss

MetricFunction = Callable[[nn.Module, Iterable[Any]], float]
MetricName = Literal["auto", "accuracy", "perplexity", "loss"]
METRICS: Final = ("auto", "accuracy", "perplexity", "loss")
CLASSIFIERS: Final = (functional.cross_entropy, functional.nll_loss)
MOST_NATS: Final = 700.0  # exp of more is infinite


class PerformanceFigures(TypedDict):
    """What a model's performance consists of, JSON-able.

    Attributes:
        loss: Mean over all predictions, in nats for classification; None when it is not finite.
        accuracy: Share of right predictions, of tokens for language models; None where there is nothing to count.
        perplexity: exp(loss), for classification; None otherwise, or when it is not finite.
        num_predictions: Labels that were predicted; samples where that is not known.
    """

    loss: float | None
    accuracy: float | None
    perplexity: float | None
    num_predictions: int


@final
@dataclass(frozen=True)
class Performance:
    """What was found on some data.

    Attributes:
        figures: See `PerformanceFigures`.
        metric: The name of the metric that `value` is of.
        value: None when it is not finite.
        higher_is_better: Whether more of it is better.
    """

    figures: PerformanceFigures
    metric: str
    value: float | None
    higher_is_better: bool

    def retain(self, baseline: "Performance") -> float | None:
        """Returns which share of a baseline this keeps: 1 is all of it, more is better than the baseline.

        Where more is better this value over the baseline's, else the other way round; 0 when this one is not finite;
        None where the ratio has no meaning, because one of the values is zero or less.
        """
        if baseline.value is None or baseline.value <= 0 or (self.value is not None and self.value < 0):
            return None
        if self.value is None:
            return 0.0
        if self.higher_is_better:
            return self.value / baseline.value
        return baseline.value / self.value if self.value else None


@final
@dataclass(frozen=True)
class Measurement:
    """How performance is measured.

    Attributes:
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        metric: "accuracy", "perplexity", "loss", "auto" (perplexity for batches with token labels, accuracy for other
            classification, else loss), or a function of the model and the data that returns a number.
        higher_is_better: For a function of the caller's.

    Raises:
        TypeError: When the metric is neither a name nor a function.
        ValueError: When the name is unknown.
    """

    loss_fn: LossFunction | None = None
    metric: object = "auto"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.metric, str) and self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)} or a function, got {self.metric!r}")
        if not isinstance(self.metric, str) and not callable(self.metric):
            raise TypeError(f"metric must be one of {', '.join(METRICS)} or a function, got {self.metric!r}")

    def __call__(self, model: nn.Module, batches: Iterable[Any]) -> Performance:
        """Returns the model's performance on all batches; call it within `measuring`.

        Raises:
            TypeError: When the model refuses a batch.
            ValueError: When there is no batch, or the metric has no meaning for the data.
        """
        totals = _Totals()
        for batch in batches:
            loss, answers = _measure_batch(model, batch, self.loss_fn)
            totals.add(loss, count_samples(batch) or 1, answers, is_language=_has_token_labels(batch))
        if not callable(self.metric):
            return _choose(totals, str(self.metric))
        value = float(self.metric(model, batches))
        kept = value if math.isfinite(value) else None
        return Performance(totals.sum_up(), str(self.name), kept, self.higher_is_better)

    @property
    def name(self) -> str | None:
        """What a function of the caller's is called; None where the metric is one of ours."""
        if not callable(self.metric):
            return None
        return str(getattr(self.metric, "__name__", type(self.metric).__name__))


@contextlib.contextmanager
def measuring(model: nn.Module, dataloader: Iterable[Any], seed: int = 0) -> Iterator[None]:
    """Within the block a model can be run; afterwards modes, buffers, gradients and generators are as before.

    The model is in evaluation mode and runs uncompiled, without gradients. The global generators are seeded, so that a
    shuffling loader gives the same batches each time; they and the loader's own come back as they were.

    Args:
        model: The model.
        dataloader: Iterated anew for each measurement.
        seed: Of the global generators.

    Raises:
        TypeError: When `dataloader` is an iterator, which is used up after one pass.
    """
    check_restartable(dataloader)
    with ordered_by(dataloader, seed), evaluating(model), torch.no_grad():
        yield


def measure(model: nn.Module, dataloader: Iterable[Any], measurement: Measurement, seed: int = 0) -> Performance:
    """Returns a model's performance and leaves the model as it was; equal calls see equal batches."""
    with measuring(model, dataloader, seed):
        return measurement(model, dataloader)


def average_figures(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the means of figures that several processes have measured, of those that all have.

    They are exact before they are rounded: of equal figures the mean is the same figure. The perplexity is that of the
    mean loss.

    Args:
        found: By process and name.

    Examples:
        >>> average_figures([{"loss": 0.1, "accuracy": 0.5}, {"loss": 0.3}])
        {'loss': 0.2}
    """
    names = [name for name in found[0] if all(name in figures for figures in found)]
    means = {name: mean(figures[name] for figures in found) for name in names}
    return means | ({"perplexity": math.exp(means["loss"])} if "perplexity" in means else {})


@dataclass
class _Totals:
    """Sums over batches."""

    num_batches: int = 0
    num_predictions: int = 0
    loss: float = 0.0
    num_right: int | None = 0
    is_language: bool = True

    def add(self, loss: float, num_samples: int, answers: "_Answers | None", *, is_language: bool) -> None:
        weight = num_samples if answers is None else answers.num_answers
        self.num_batches += 1
        self.num_predictions += weight
        self.loss += loss * weight if weight else 0.0  # a batch without a label has a loss of NaN, over nothing
        self.num_right = None if answers is None or self.num_right is None else self.num_right + answers.num_right
        self.is_language &= is_language

    def sum_up(self) -> PerformanceFigures:
        if not self.num_batches:
            raise ValueError("the data to measure on must hold at least one batch, but got none; is the loader empty?")
        if not self.num_predictions:
            raise ValueError("the data to measure on must hold at least one label, but all are to be ignored")
        loss = self.loss / self.num_predictions
        is_finite = math.isfinite(loss)
        has_answers = self.num_right is not None and is_finite
        return {
            "loss": loss if is_finite else None,
            "accuracy": (self.num_right or 0) / self.num_predictions if has_answers else None,
            "perplexity": math.exp(loss) if has_answers and loss < MOST_NATS else None,
            "num_predictions": self.num_predictions,
        }


@dataclass(frozen=True)
class _Answers:
    """How many labels a classification loss had, and how many of them were the most probable ones."""

    num_answers: int
    num_right: int


@final
class _Listener(TorchFunctionMode):
    """Counts the answers of each classification loss that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[_Answers | None] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        if func in CLASSIFIERS:
            self.heard.append(_count_answers(*args[:2], **(kwargs or {})))
        return result

    @property
    def answers(self) -> _Answers | None:
        """Those of the one loss; None when there was none, or several."""
        return self.heard[0] if len(self.heard) == 1 else None


def _count_answers(
    input: Tensor,  # noqa: A002 - torch's name
    target: Tensor,
    *_: object,
    ignore_index: int = -100,
    **__: object,
) -> _Answers | None:
    if target.is_floating_point():  # class probabilities
        return None
    counted = target != ignore_index
    right = (input.argmax(1 if input.ndim > 1 else 0) == target) & counted
    return _Answers(int(counted.sum()), int(right.sum()))


def _measure_batch(
    model: nn.Module,
    batch: Any,  # noqa: ANN401 - any batch
    loss_fn: LossFunction | None,
) -> tuple[float, _Answers | None]:
    parameter = next(iter(model.parameters()), None)
    moved = batch if parameter is None else move_batch(batch, parameter.device)
    with _Listener() as listener:
        loss = float(compute_loss(model, moved, loss_fn))
    return loss, listener.answers


def _has_token_labels(batch: object) -> bool:
    if not isinstance(batch, Mapping) or "input_ids" not in batch:
        return False
    labels = batch.get("labels", batch["input_ids"])
    return isinstance(labels, Tensor) and labels.ndim > 1


def _choose(totals: _Totals, name: str) -> Performance:
    figures, has_answers = totals.sum_up(), totals.num_right is not None
    if name == "auto":
        name = "loss" if not has_answers else "perplexity" if totals.is_language else "accuracy"
    if name != "loss" and not has_answers:
        raise ValueError(
            f"{name} must have predicted classes to be counted, but no batch computes exactly one cross-entropy; "
            "choose metric='loss', or pass a function of the model and the data"
        )
    value: float | None = figures[name]  # type: ignore[literal-required] # one of the three
    return Performance(figures, name, value, name == "accuracy")

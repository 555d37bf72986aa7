"""From a model, data and a formula to importance: the one way in which gradient scores are computed."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypedDict, get_args

import torch
from torch import Tensor, nn

from lottery_tickets._core.checks import check_count, check_known
from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.stream import GradientStream, StreamSettings
from lottery_tickets._core.gradients.values import Value
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.selection.scopes import check_sparsity
from lottery_tickets._core.weights import Choices, PrunableWeight, find_prunable_weights
from lottery_tickets.scores.importance import Importance, ImportanceReport
from lottery_tickets.scores.settling import Settling, list_stops

NumSamples = int | Literal["auto"]
Offload = Literal["cpu"]

SAMPLE: Final = "one entry of the batch's first dimension; its loss is the mean loss of a batch that holds it alone"
MODE: Final = "evaluation: no dropout, batch norm with its running statistics"
ALL_SAMPLES: Final = 2**62


@dataclass(frozen=True)
class Formula:
    """A score as the absolute mean of a value over samples, times a function of the weight.

    Attributes:
        name: As the report says it.
        value: What is averaged.
        scale: From a weight to the factor of its score.
    """

    name: str
    value: Value
    scale: Callable[[Tensor], Tensor] | None = None


class ScoringArguments(TypedDict, total=False):
    """What all gradient scores take as keywords.

    Attributes:
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        offload: "cpu" keeps the scores in CPU memory while a GPU computes; changes nothing else.
        standard_errors: Whether to compute the standard error of each score; needs a second sum a weight.
        target_sparsity: With num_samples="auto", the sparsity at which the ranking has to settle.
        scope: With "auto", what is compared with what in that ranking; "global" by default.
        tolerance: With "auto", the share of the kept weights that a doubling of the samples may still change; 0.02.
        nonfinite_limit: The share of samples that may have gradients that are not finite, 0.01 by default; they are
            left out and counted.
        seed: Of labels that are drawn, and of a loader that shuffles; 42 by default.
        progress: Whether to show a bar.
    """

    loss_fn: LossFunction | None
    include: Choices | None
    exclude: Choices | None
    offload: Offload | None
    standard_errors: bool
    target_sparsity: float | None
    scope: str
    tolerance: float
    nonfinite_limit: float
    seed: int
    progress: bool


@dataclass(frozen=True)
class ScoringOptions:
    """The arguments of a gradient score, checked; explained by `ScoringArguments` and `compute_fisher_importance`."""

    num_samples: NumSamples
    chunk_size: int | None
    use_mixed_precision: bool
    gradient_clip: float | None
    kind: Labels = "empirical"
    loss_fn: LossFunction | None = None
    include: Choices | None = None
    exclude: Choices | None = None
    offload: Offload | None = None
    standard_errors: bool = False
    target_sparsity: float | None = None
    scope: str = "global"
    tolerance: float = 0.02
    nonfinite_limit: float = 0.01
    seed: int = 42
    progress: bool = False

    def __post_init__(self) -> None:
        if self.num_samples != "auto":
            check_count("num_samples", self.num_samples, "an integer of at least 1, or 'auto'")
        elif self.target_sparsity is None:
            raise ValueError(
                "num_samples='auto' stops when the ranking at a sparsity has settled; say which with target_sparsity="
            )
        else:
            check_sparsity(self.target_sparsity, self.scope)
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size, "an integer of at least 1, or None")
        clip = self.gradient_clip
        if clip is not None and not 0 < clip < math.inf:
            raise ValueError(f"gradient_clip must be a positive number or None, got {clip!r}")
        if self.offload not in {None, "cpu"}:
            raise ValueError(f"offload must be None or 'cpu', got {self.offload!r}")
        if self.kind not in get_args(Labels):
            raise ValueError(f"kind must be one of {', '.join(map(repr, get_args(Labels)))}, got {self.kind!r}")
        if self.kind == "exact" and (self.standard_errors or clip is not None):
            raise ValueError("kind 'exact' has neither standard_errors nor gradient_clip; use kind 'sampled' for these")


def make_options(**arguments: Any) -> ScoringOptions:  # noqa: ANN401 - of many types, checked by ScoringOptions
    """Returns the options of a gradient score.

    Raises:
        TypeError: When an argument is unknown; the message lists what there is.
        ValueError: When one is out of range.
    """
    check_known("arguments of a score", arguments, sorted(field.name for field in fields(ScoringOptions)))
    return ScoringOptions(**arguments)


@torch.inference_mode(mode=False)
def score_gradients(
    model: nn.Module, dataloader: Iterable[Any], formulas: Sequence[Formula], options: ScoringOptions
) -> list[Importance]:
    """Returns the importance by each formula, all from one pass over the data.

    Raises:
        TypeError: When the model or a batch is of another kind.
        ValueError: When there is no sample, or too many have gradients that are not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, which can be run on data, got {type(model).__name__}")
    if not hasattr(dataloader, "__iter__") and not hasattr(dataloader, "__getitem__"):
        raise TypeError(f"the dataloader must give batches when it is iterated, got {type(dataloader).__name__}")
    weights = find_prunable_weights(model, include=options.include, exclude=options.exclude)
    autocast = find_autocast(weights) if options.use_mixed_precision else None
    values = list({formula.value.name: formula.value for formula in formulas}.values())
    stream = GradientStream(model, weights, values, _make_settings(options, autocast))
    settling = _make_settling(stream, formulas[0], weights, options)
    automatic = options.num_samples == "auto"
    limit = ALL_SAMPLES if options.num_samples == "auto" else options.num_samples
    stops = list_stops(ALL_SAMPLES) if automatic else []
    stream.run(dataloader, limit, stops, settling.is_settled if automatic else lambda: False)
    report: ImportanceReport = {
        "sample": SAMPLE,
        "num_samples": stream.num_samples,
        "num_batches": stream.num_batches,
        "computed": "whole batches" if stream.reason is None else "one sample at a time",
        "reason": stream.reason,
        "num_nonfinite_samples": stream.num_bad,
        "num_clipped_samples": stream.num_clipped,
        "labels": options.kind,
        "mode": MODE,
        "precision": _name_precision(weights, autocast),
    }
    if automatic:
        report["settling"] = [{"num_samples": n, "changed": changed} for n, changed in settling.history]
        report["settled"] = bool(settling.history) and settling.history[-1][1] <= options.tolerance
    taken = {value.name: stream.take(value) for value in values}
    sharing = Counter(formula.value.name for formula in formulas)
    found = []
    for formula in formulas:
        sharing[formula.value.name] -= 1
        scores, errors = taken[formula.value.name]
        if sharing[formula.value.name]:  # a later formula starts from the same means
            scores = {name: score.clone() for name, score in scores.items()}
            errors = None if errors is None else {name: error.clone() for name, error in errors.items()}
        found.append(_make_importance(formula, scores, errors, weights, report))
    return found


def find_autocast(weights: Mapping[str, PrunableWeight]) -> torch.dtype | None:
    """Returns bfloat16 where float32 weights lie on a GPU that computes in it, else None."""
    on_gpu = all(weight.tensor.is_cuda and weight.tensor.dtype == torch.float32 for weight in weights.values())
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else None


def _make_importance(
    formula: Formula,
    scores: dict[str, Tensor],
    errors: dict[str, Tensor] | None,
    weights: Mapping[str, PrunableWeight],
    report: ImportanceReport,
) -> Importance:
    """Returns the formula's importance, made from the means in place."""
    for name, score in scores.items():
        if formula.scale is not None:
            scale = formula.scale(weights[name].tensor.detach().to(score))
            score.mul_(scale)
            if errors is not None:
                errors[name].mul_(scale.abs())
        score.abs_()
    return Importance(
        {name: score.float() for name, score in scores.items()},
        {"score": formula.name, **report},
        output_dims={name: weight.output_dims for name, weight in weights.items()},
        standard_errors=None if errors is None else {name: error.float() for name, error in errors.items()},
    )


def _make_settings(options: ScoringOptions, autocast: torch.dtype | None) -> StreamSettings:
    return StreamSettings(
        loss_fn=options.loss_fn,
        labels=options.kind,
        gradient_clip=options.gradient_clip,
        block_elements=options.chunk_size,
        offload=options.offload is not None,
        autocast=autocast,
        squares=options.standard_errors,
        nonfinite_limit=options.nonfinite_limit,
        seed=options.seed,
        progress=options.progress,
    )


def _make_settling(
    stream: GradientStream, formula: Formula, weights: Mapping[str, PrunableWeight], options: ScoringOptions
) -> Settling:
    def compute_scores() -> tuple[int, dict[str, Tensor]]:
        scores = stream.compute_means(formula.value)
        if formula.scale is not None:
            for name, score in scores.items():
                score.mul_(formula.scale(weights[name].tensor.detach().to(score)))
        return stream.num_samples, scores

    dims = {name: weight.output_dims for name, weight in weights.items()}
    return Settling(compute_scores, options.target_sparsity or 0.0, options.scope, dims, options.tolerance)


def _name_precision(weights: Mapping[str, PrunableWeight], autocast: torch.dtype | None) -> str:
    dtypes = sorted({str(weight.tensor.dtype).removeprefix("torch.") for weight in weights.values()})
    return ", ".join(dtypes) + ("" if autocast is None else f" under autocast to {autocast}".replace("torch.", ""))

"""From a model, data and a formula to importance: the one way in which gradient scores are computed."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from lottery_tickets._core.checks import check_count
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.gradients.joining import join_sums_
from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.gradients.values import Value
from lottery_tickets._core.memory.asking import ask_before_scores
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.sharding.data_parallel import find_readers, share_out
from lottery_tickets._core.sharding.dtensors import see_local, wrap_like
from lottery_tickets._core.sharding.fsdp import announcing
from lottery_tickets._core.sharding.in_step import InStep
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.weights import Weights
from lottery_tickets.scores.importance import Importance, ImportanceReport
from lottery_tickets.scores.settling import Settling, list_stops

NumSamples = int | Literal["auto"]

SAMPLE: Final = "one entry of the batch's first dimension; its loss is the mean loss of a batch that holds it alone"
MODE: Final = "evaluation: no dropout, batch norm with its running statistics"
ALL_SAMPLES: Final = 2**62


@dataclass(frozen=True)
class Formula:
    """A score |mean of a value over samples, times a function of the weight|.

    Attributes:
        name: As the report says it.
        value: What is averaged.
        scale: From a weight to the factor of its score; not negative where the value is not signed.
    """

    name: str
    value: Value
    scale: Callable[[Tensor], Tensor] | None = None


@torch.inference_mode(mode=False)
def score_gradients(
    model: nn.Module,
    dataloader: Iterable[Any],
    formulas: Sequence[Formula],
    num_samples: NumSamples,
    options: ScoringOptions,
    *,
    labels: Labels = "empirical",
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
) -> list[Importance]:
    """Returns the importance by each formula, all from one pass over the data.

    Raises:
        TypeError: When the model or a batch is of another kind.
        ValueError: When there is no sample, or too many have gradients that are not finite.
    """
    check_model(model)
    if not hasattr(dataloader, "__iter__") and not hasattr(dataloader, "__getitem__"):
        raise TypeError(f"the dataloader must give batches when it is iterated, got {type(dataloader).__name__}")
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    readers = find_readers(model)
    limit = _find_limit(num_samples, options)
    own_limit = share_out(limit, readers.apart)
    values = list({formula.value.name: formula.value for formula in formulas}.values())
    if weights.shards is None:
        ask_before_scores(model, len(values), options, {"include": include, "exclude": exclude})
    own_seed = derive_seed(seed, "process", readers.apart.place) if readers.apart.place else seed
    step = InStep(readers.together, readers.alike)

    def compute() -> tuple[GradientStream, Settling | None]:
        stream = GradientStream(
            model,
            weights,
            values,
            options,
            labels=labels,
            loss_fn=loss_fn,
            seed=own_seed,
            progress=progress,
            step=step,
        )
        settling = _make_settling(stream, formulas[0], weights, options)
        stops = [] if num_samples != "auto" else _share_out_stops(limit, readers.apart)
        stream.run(dataloader, own_limit, stops, settling.is_settled, join=lambda: join_sums_(stream, step))
        return stream, settling if num_samples == "auto" else None

    with nullcontext() if readers.together is ALONE else announcing(unwrap(model), step.meet):
        stream, settling = step.run(compute)
    report = _describe(stream, labels, settling)
    return _make_all(formulas, {value.name: stream.take(value) for value in values}, weights, report)


def check_model(model: object) -> None:
    """Raises a TypeError when it is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, which can be run on data, got {type(model).__name__}")


def _find_limit(num_samples: NumSamples, options: ScoringOptions) -> int:
    if num_samples != "auto":
        return check_count("num_samples", num_samples, "an integer of at least 1, or 'auto'")
    if options.target_sparsity is None:
        raise ValueError(
            "num_samples='auto' stops when the ranking at a sparsity has settled; say which with "
            "options=ScoringOptions(target_sparsity=...)"
        )
    return ALL_SAMPLES


def _share_out_stops(limit: int, readers: Together) -> list[int]:
    """Returns after how many of its own samples each process looks whether the ranking has settled."""
    return [share_out(stop, readers) for stop in list_stops(limit) if stop >= readers.num_processes]


def _describe(stream: GradientStream, labels: Labels, settling: Settling | None) -> ImportanceReport:
    report: ImportanceReport = {
        "sample": SAMPLE,
        "num_samples": stream.num_samples,
        "num_batches": stream.num_batches,
        "computed": "whole batches" if stream.reason is None else "one sample at a time",
        "reason": stream.reason,
        "num_nonfinite_samples": stream.num_bad,
        "num_clipped_samples": stream.num_clipped,
        "labels": labels,
        "mode": MODE,
        "precision": _name_precision(stream),
    }
    if settling is not None:
        report["settling"] = [{"num_samples": n, "changed": changed} for n, changed in settling.history]
        report["settled"] = bool(settling.history) and settling.history[-1][1] <= settling.tolerance
    return report


def _make_all(
    formulas: Sequence[Formula],
    taken: Mapping[str, tuple[dict[str, Tensor], dict[str, Tensor] | None]],
    weights: Weights,
    report: ImportanceReport,
) -> list[Importance]:
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


def _make_importance(
    formula: Formula,
    scores: dict[str, Tensor],
    errors: dict[str, Tensor] | None,
    weights: Weights,
    report: ImportanceReport,
) -> Importance:
    """Returns the formula's importance, made from the means in place: scores shared out as the weights are."""
    for name, score in scores.items():
        if formula.scale is not None:
            scale = formula.scale(see_local(weights[name].tensor).detach().to(score))
            score.mul_(scale)
            if errors is not None:
                errors[name].mul_(scale.abs())
        if formula.value.is_signed:  # else it would be read and written for nothing
            score.abs_()
    return Importance(
        _finish(scores, weights),
        {"score": formula.name, **report},
        output_dims=weights.output_dims,
        standard_errors=None if errors is None else _finish(errors, weights),
    )


def _finish(here: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    return {name: wrap_like(tensor.float(), weights[name].tensor) for name, tensor in here.items()}


def _make_settling(stream: GradientStream, formula: Formula, weights: Weights, options: ScoringOptions) -> Settling:
    def compute_scores() -> tuple[int, Weights]:
        scores = stream.compute_means(formula.value)
        if formula.scale is not None:
            for name, score in scores.items():
                score.mul_(formula.scale(see_local(weights[name].tensor).detach().to(score)))
        return stream.count_all()[0], weights.with_values(scores)

    return Settling(compute_scores, options.target_sparsity or 0.0, options.scope, options.tolerance)


def _name_precision(stream: GradientStream) -> str:
    dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in stream.passes.weights.values()})
    autocast = "" if stream.autocast is None else f" under autocast to {stream.autocast}".replace("torch.", "")
    return ", ".join(dtypes) + autocast

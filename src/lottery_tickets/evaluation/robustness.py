"""How much pruning a trained model bears without retraining: by magnitude, beside random masks."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.measuring.performance import Measurement, MetricFunction, MetricName, Performance, measure
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.records import recorded
from lottery_tickets._core.selection.largest import Ranking
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask

SPARSITY_LEVELS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RANDOM_BITS: Final = (1 << 30) - 1  # as a float32's bits, a finite number; they sort like these integers
Curve = Literal["magnitude", "random"]
CURVES: Final[tuple[Curve, ...]] = ("magnitude", "random")
Draw = Callable[[float], Mask]


class RobustnessPoint(TypedDict):
    """A model's performance at one sparsity.

    Attributes:
        sparsity: The level that was asked for.
        actual_sparsity: The share of weights that is removed; within layers counts are rounded.
        layer_sparsities: Of each layer by name.
        loss: Mean loss; None when it is not finite.
        accuracy: Where batches have classes; None otherwise.
        perplexity: exp(loss) where batches have classes; None otherwise.
        retention: The share of the unpruned performance that is left, see `compute_lottery_ticket_quality`; None where
            it has no meaning.
    """

    sparsity: float
    actual_sparsity: float
    layer_sparsities: dict[str, float]
    loss: float | None
    accuracy: float | None
    perplexity: float | None
    retention: float | None


class RobustnessMetrics(TypedDict):
    """Three figures that sum up the curves; `compute_pruning_robustness` defines them."""

    winning_ticket_score: float | None
    optimal_sparsity: float
    critical_sparsity: float | None


class PruningRobustness(TypedDict):
    """What `compute_pruning_robustness` returns.

    Attributes:
        baseline_loss: Of the model as it is.
        metric: What retention is a ratio of.
        sparsity_curves: By "magnitude" and "random" the points, least sparse first.
        robustness_metrics: See `RobustnessMetrics`.
        masks: With `return_masks`, those of each curve in the order of its points; None otherwise.
        settings: Scope, seed, tolerance, critical retention, and how many weights there are.
    """

    baseline_loss: float
    metric: str
    sparsity_curves: dict[str, list[RobustnessPoint]]
    robustness_metrics: RobustnessMetrics
    masks: dict[str, list[Mask]] | None
    settings: dict[str, Any]


@recorded("robustness")
def compute_pruning_robustness(
    model: nn.Module,
    batch: Any,  # noqa: ANN401 - any batch
    sparsity_levels: Sequence[float] | None = None,
    *,
    scope: Literal["global", "layer"] = "global",
    curves: Sequence[Curve] = CURVES,
    include: Choices | None = None,
    exclude: Choices | None = None,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    tolerance: float = 0.05,
    critical_retention: float = 0.5,
    return_masks: bool = False,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> PruningRobustness:
    """Returns a trained model's performance at growing sparsities, pruned by magnitude and at random, not retrained.

    This is post-hoc robustness of the weights as they are. It trains nothing, so it says nothing about winning tickets,
    despite the name of one of its figures: see `compute_lottery_ticket_quality` with a `trainer_fn`, and the claims of
    `compute_iterative_magnitude_pruning`.

    Weights are ranked once; the mask of each level is a stretch of that order, so sparser masks are subsets. Random
    masks remove the same share of each layer, in an order drawn once from the seed, and are nested too. The model is
    measured under `masked` and is never written to. Memory beyond a forward pass: one mask of one bit a weight and one
    layer (with float32 weights; random orders take 4 bytes a weight of one layer whatever the dtype).

    Args:
        model: Any trained model.
        batch: One batch, see the three ways a model can be driven in `compute_loss`. Take one large enough: figures
            from one batch are as noisy as it is small.
        sparsity_levels: Shares removed, each in [0, 1]; by default 0.1 to 0.9 in tenths, and 0.95.
        scope: Whether magnitudes are compared among all weights ("global") or within each layer ("layer").
        curves: Which to measure, of "magnitude" and "random".
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        metric: "auto" (perplexity for language models, accuracy for other classification, else loss), "accuracy",
            "perplexity", "loss", or a function of the model and a list with the batch that returns a number.
        higher_is_better: Whether more is better, for a function.
        tolerance: The loss of retention that counts as none, for `optimal_sparsity`.
        critical_retention: The retention whose crossing is `critical_sparsity`. With few classes chance alone retains
            more than half of an accuracy, so choose it above that.
        return_masks: Whether to keep all masks: one bit a weight, level and curve.
        seed: Of the random masks.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        `baseline_loss`, `metric`, `sparsity_curves`, `masks`, `settings`, see `PruningRobustness`; and
        `robustness_metrics`, with retention r(s) joined by straight lines between levels, r(0) = 1:
        `winning_ticket_score`, the mean over the range of levels of r(s) by magnitude minus r(s) at random, both cut to
        [0, 1]: 0 when magnitudes say nothing, at most 1; None without both curves, or where retention has no meaning.
        `optimal_sparsity`, the largest level up to which every level retains at least 1 - tolerance by magnitude; 0.0
        when the first does not. `critical_sparsity`, where r(s) by magnitude first falls below critical_retention; None
        when it does not within the levels.

    Raises:
        TypeError: When an argument is of another type, or the model refuses the batch.
        ValueError: When an argument is out of range, a weight is not finite, the unpruned loss is not finite, or `path`
            holds something else.
        OSError: When `path` cannot be read or written.

    Examples:
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        >>> found = compute_pruning_robustness(model, (torch.randn(64, 8), torch.randint(4, (64,))), [0.5, 1.0])
        >>> [point["sparsity"] for point in found["sparsity_curves"]["magnitude"]], found["metric"]
        ([0.5, 1.0], 'accuracy')
    """
    levels = _check_levels(sparsity_levels)
    _check_settings(scope, curves, tolerance, critical_retention)
    measurement = Measurement(loss_fn, metric, higher_is_better)
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    refuse_sharded(model, "curves over sparsities")
    baseline = measure(model, [batch], measurement)
    if baseline.figures["loss"] is None:
        raise ValueError(
            "the unpruned model's loss must be finite, but is NaN or infinite on this batch; did it diverge?"
        )
    points: dict[str, list[RobustnessPoint]] = {}
    masks: dict[str, list[Mask]] = {}
    bar = tqdm(total=len(levels) * len(curves), unit="mask", disable=not progress)
    with bar:
        for curve in curves:
            draw = _rank_magnitudes(weights, scope) if curve == "magnitude" else partial(_draw_random, weights, seed)
            points[curve], masks[curve] = [], []
            for mask in map(draw, levels):
                points[curve].append(_measure_point(model, mask, batch, measurement, baseline))
                masks[curve] += [mask] if return_masks else []
                bar.update()
    return {
        "baseline_loss": baseline.figures["loss"],
        "metric": baseline.metric,
        "sparsity_curves": points,
        "robustness_metrics": _sum_up(points, tolerance, critical_retention),
        "masks": masks if return_masks else None,
        "settings": {
            "scope": scope,
            "seed": seed,
            "tolerance": tolerance,
            "critical_retention": critical_retention,
            "baseline": baseline.figures,
            "num_weights": weights.num_weights,
        },
    }


def _check_levels(given: object) -> list[float]:
    levels = SPARSITY_LEVELS if given is None else given
    if isinstance(levels, Tensor | np.ndarray):
        levels = levels.tolist()
    if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
        raise ValueError(f"sparsity_levels must be a list of at least one number in [0, 1], got {given!r}")
    return sorted({check_sparsity(level, "global") or 0.0 for level in levels})


def _check_settings(scope: object, curves: object, tolerance: float, critical_retention: float) -> None:
    if scope not in {"global", "layer"}:
        raise ValueError(f"scope must be 'global' or 'layer', whose masks are nested, got {scope!r}")
    if isinstance(curves, str) or not isinstance(curves, Sequence) or not curves or set(curves) - set(CURVES):
        raise ValueError(f"curves must be some of {list(CURVES)}, got {curves!r}")
    for name, value in (("tolerance", tolerance), ("critical_retention", critical_retention)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")


def _rank_magnitudes(weights: Weights, scope: str) -> Draw:
    """Returns a function from a sparsity to its mask; weights are ranked here, once."""
    groups = [list(weights)] if scope == "global" else [[name] for name in weights]
    rankings = [Ranking(weights.part(names)) for names in groups]

    def draw(sparsity: float) -> Mask:
        bits: dict[str, Tensor] = {}
        for ranking in rankings:
            bits |= ranking.keep(ranking.num_scores - round(sparsity * ranking.num_scores))
        return Mask(bits, weights.shapes, {"method": "magnitude", "sparsity": sparsity, "scope": scope})

    return draw


def _draw_random(weights: Weights, seed: int, sparsity: float) -> Mask:
    bits: dict[str, Tensor] = {}
    for name, weight in weights.items():
        size = weight.size
        scores = Weights.from_tensors({name: _draw_scores(size, derive_seed(seed, "random mask", name))})
        bits |= Ranking(scores).keep(size - round(sparsity * size), _guess_pattern(sparsity, size))
    return Mask(bits, weights.shapes, {"method": "random", "sparsity": sparsity, "scope": "layer", "seed": seed})


def _draw_scores(num_weights: int, seed: int) -> Tensor:
    """Returns random float32 numbers; the same for each level, because keeping them would take 4 bytes a weight."""
    words = np.random.PCG64(seed).random_raw(-(-num_weights // 2)).view(np.uint32)[:num_weights]
    words &= np.uint32(RANDOM_BITS)
    return torch.from_numpy(words.view(np.float32))


def _guess_pattern(sparsity: float, num_weights: int) -> tuple[int, int]:
    """Returns where the threshold of uniform scores is, within four standard deviations."""
    spread = 4 * math.sqrt(sparsity * (1 - sparsity) / max(1, num_weights)) + 1 / max(1, num_weights)
    low, high = (min(max(sparsity + side * spread, 0.0), 1.0) for side in (-1, 1))
    return int(low * RANDOM_BITS), int(high * RANDOM_BITS)


def _measure_point(
    model: nn.Module,
    mask: Mask,
    batch: Any,  # noqa: ANN401 - any batch
    measurement: Measurement,
    baseline: Performance,
) -> RobustnessPoint:
    with masked(model, mask):
        found = measure(model, [batch], measurement)
    return {
        "sparsity": mask.provenance["sparsity"],
        "actual_sparsity": mask.sparsity,
        "layer_sparsities": mask.layer_sparsity(),
        "loss": found.figures["loss"],
        "accuracy": found.figures["accuracy"],
        "perplexity": found.figures["perplexity"],
        "retention": found.retain(baseline),
    }


def _sum_up(
    points: Mapping[str, Sequence[RobustnessPoint]], tolerance: float, critical_retention: float
) -> RobustnessMetrics:
    lines = {curve: _find_line(found) for curve, found in points.items()}
    line = lines.get("magnitude")
    return {
        "winning_ticket_score": _find_mean_gap(line, lines.get("random")),
        "optimal_sparsity": _find_optimum(line or [], 1 - tolerance),
        "critical_sparsity": _find_crossing(line or [], critical_retention),
    }


def _find_line(points: Sequence[RobustnessPoint]) -> list[tuple[float, float]] | None:
    """Returns (sparsity, retention) from the unpruned model on; None where retention has no meaning."""
    line = [(point["sparsity"], point["retention"]) for point in points if point["retention"] is not None]
    return [(0.0, 1.0), *line] if len(line) == len(points) else None


def _find_mean_gap(first: list[tuple[float, float]] | None, second: list[tuple[float, float]] | None) -> float | None:
    if first is None or second is None:
        return None
    gaps = [(sparsity, min(a, 1.0) - min(b, 1.0)) for (sparsity, a), (_, b) in zip(first, second, strict=True)]
    width = gaps[-1][0]
    area = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(gaps))
    return area / width if width else None


def _find_optimum(line: Sequence[tuple[float, float]], least: float) -> float:
    optimum = 0.0
    for sparsity, retention in line:
        if retention < least:
            break
        optimum = sparsity
    return optimum


def _find_crossing(line: Sequence[tuple[float, float]], level: float) -> float | None:
    return next(_list_crossings(line, level), None)


def _list_crossings(line: Sequence[tuple[float, float]], level: float) -> Iterator[float]:
    for (left, before), (right, after) in pairwise(line):
        if after < level <= before:
            yield left + (right - left) * (before - level) / (before - after)

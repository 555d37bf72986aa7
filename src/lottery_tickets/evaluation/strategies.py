"""What different scores are worth for pruning a trained model as it is: performance over sparsities, side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict

from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.measuring.performance import (
    Measurement,
    MetricFunction,
    MetricName,
    Performance,
    PerformanceFigures,
    measure,
)
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.records import recorded
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets.evaluation.robustness import RobustnessPoint
from lottery_tickets.importance_scoring import compute_magnitude_importance, create_importance_mask
from lottery_tickets.masks.controls import create_random_mask
from lottery_tickets.masks.holding import masked
from lottery_tickets.masks.mask import Mask

SPARSITY_LEVELS: Final = (0.3, 0.5, 0.7, 0.9)
RANDOM: Final = "random"
Scores = Mapping[str, Tensor]


class StrategyRow(RobustnessPoint):
    """A model's performance, pruned by one strategy to one sparsity; not retrained.

    Attributes:
        strategy: Its name.
        num_collapsed_layers: Layers that keep no weight.
    """

    strategy: str
    num_collapsed_layers: int


class StrategyComparison(TypedDict):
    """What `compare_pruning_strategies` returns.

    Attributes:
        metric: What retention is a ratio of.
        higher_is_better: Whether more of it is better.
        baseline: Figures of the model as it is.
        rows: One a strategy and sparsity, see `StrategyRow`.
        settings: `scope` and `seed`.
    """

    metric: str
    higher_is_better: bool
    baseline: PerformanceFigures
    rows: list[StrategyRow]
    settings: dict[str, Any]


@recorded("strategies")
def compare_pruning_strategies(
    model: nn.Module,
    dataloader: Iterable[Any],
    strategies: Mapping[str, Scores | Callable[[], Scores]] | None = None,
    *,
    sparsity_levels: Sequence[float] = SPARSITY_LEVELS,
    scope: str = "global",
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> StrategyComparison:
    """Returns a trained model's performance, pruned by several scores to several sparsities, not retrained.

    This is post-hoc: it trains nothing, and says nothing about winning tickets. What random masks of the same weights
    leave is always beside it. The model is never written to.

    Args:
        model: Any trained model.
        dataloader: What to measure on; iterated anew for each mask.
        strategies: By name scores, such as `compute_fisher_importance` returns, or a function that returns them, called
            when its turn comes, so that the scores of one strategy alone are in memory. Magnitude alone when None.
        sparsity_levels: Shares removed, each in [0, 1].
        scope: As in `create_magnitude_mask`, for all strategies, random masks included.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        metric: As in `compute_lottery_ticket_quality`.
        higher_is_better: Whether more is better, for a metric that is a function.
        seed: Of random masks and of a shuffling data loader.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Raises:
        TypeError: When `dataloader` is an iterator, or the model refuses a batch.
        ValueError: When a level is out of range, a strategy is called "random", scores do not fit the model, or the
            unpruned loss is not finite.
        OSError: When `path` cannot be read or written.

    Examples:
        >>> import torch
        >>> model, data = nn.Linear(8, 4), [(torch.randn(16, 8), torch.randint(4, (16,)))]
        >>> found = compare_pruning_strategies(model, data, sparsity_levels=[0.5])
        >>> [(row["strategy"], row["actual_sparsity"]) for row in found["rows"]]
        [('magnitude', 0.5), ('random', 0.5)]
    """
    check_restartable(dataloader)
    levels = _check_levels(sparsity_levels, scope)
    chosen = strategies or {"magnitude": partial(compute_magnitude_importance, model)}
    if RANDOM in chosen:
        raise ValueError(f"no strategy may be called {RANDOM!r}, which is measured beside them all; rename it")
    measurement = Measurement(loss_fn, metric, higher_is_better)
    baseline = measure(model, dataloader, measurement, seed)
    if baseline.figures["loss"] is None:
        raise ValueError(
            "the unpruned model's loss must be finite, but is NaN or infinite on this data; did it diverge?"
        )
    rows: list[StrategyRow] = []
    shape: Mask | None = None
    with tqdm(total=len(levels) * (len(chosen) + 1), unit="mask", disable=not progress) as bar:

        def add(name: str, sparsity: float, mask: Mask) -> None:
            with masked(model, mask):
                rows.append(_describe(name, sparsity, mask, measure(model, dataloader, measurement, seed), baseline))
            bar.update()

        for name, given in chosen.items():
            scores = given() if callable(given) else given
            for sparsity in levels:
                shape = create_importance_mask(scores, sparsity, scope=scope)
                add(name, sparsity, shape)
            del scores, given
        for sparsity in levels:
            add(RANDOM, sparsity, create_random_mask(shape or model, sparsity, seed, scope=scope))
    return {
        "metric": baseline.metric,
        "higher_is_better": baseline.higher_is_better,
        "baseline": baseline.figures,
        "rows": rows,
        "settings": {"scope": scope, "seed": seed},
    }


def _check_levels(given: Sequence[float], scope: str) -> list[float]:
    if not list(given):
        raise ValueError("sparsity_levels must be a list of at least one number in [0, 1], got an empty one")
    return sorted({check_sparsity(level, scope) for level in given})


def _describe(strategy: str, sparsity: float, mask: Mask, found: Performance, baseline: Performance) -> StrategyRow:
    layers = mask.layer_sparsity()
    return {
        "strategy": strategy,
        "sparsity": sparsity,
        "actual_sparsity": mask.sparsity,
        "layer_sparsities": layers,
        "loss": found.figures["loss"],
        "accuracy": found.figures["accuracy"],
        "perplexity": found.figures["perplexity"],
        "retention": found.retain(baseline),
        "num_collapsed_layers": sum(share == 1 for share in layers.values()),
    }

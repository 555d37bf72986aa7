"""Performance of a trained network over sparsity: pruned by magnitude and at random, or by several scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from statistical_report_generator.figures.palette import Look, choose_runs, choose_scores
from statistical_report_generator.figures.style import (
    GREEN,
    VERMILION,
    add_mark,
    create_figure,
    draw_grid,
    draw_level,
    make_drawable,
)
from statistical_report_generator.figures.words import show_words
from statistical_report_generator.tables import POINTS

FIGURES: Final = ("accuracy", "perplexity", "loss")  # that a network at a sparsity has; others have only retention
LEAST_LOG_RATIO: Final = 20.0  # of what is shown on a logarithmic axis
MOST_WIDENED: Final = 3  # curves

Point = Mapping[str, Any]


def find_figure(metric: str, points: Sequence[Point]) -> str:
    """Returns which figure of the points is drawn: that of the metric; the loss where a metric is the caller's own.

    Args:
        metric: Of the results.
        points: That have it or not.
    """
    if metric in FIGURES and any(point.get(metric) is not None for point in points):
        return metric
    return "loss"


def draw_robustness(results: Mapping[str, Any], title: str = "") -> Figure:
    """Returns the figure of a network's performance over sparsity, pruned by magnitude and at random, not retrained.

    Args:
        results: As `compute_pruning_robustness` returns; read are `sparsity_curves`, `metric`, `baseline_loss`,
            `robustness_metrics`, and of `settings` the `baseline`. What is None leaves a gap.
        title: Stands above.

    Raises:
        ValueError: When there is no point.
    """
    curves = results["sparsity_curves"]
    if not any(curves.values()):
        raise ValueError("there must be at least one sparsity to be drawn, got none")
    baseline = {"loss": results["baseline_loss"], **(results.get("settings", {}).get("baseline") or {})}
    figure = create_figure(7, 4.4)
    axes = figure.add_subplot()
    what = find_figure(results["metric"], [point for points in curves.values() for point in points])
    _draw_points(axes, curves, what, choose_scores(list(curves)), baseline.get(what))
    metrics = results["robustness_metrics"]
    for name, colour, line in (("optimal", GREEN, "-."), ("critical", VERMILION, ":")):
        place = metrics.get(f"{name}_sparsity")
        if place:
            axes.axvline(POINTS * place, color=colour, linestyle=line, label=f"{name} sparsity")
    _finish(axes, title)
    return figure


def draw_strategies(results: Mapping[str, Any], title: str = "") -> Figure:
    """Returns the figure of a network's performance over sparsity, a line for each score it is pruned by.

    Args:
        results: With `rows` (`strategy`, `sparsity`, `loss`, `accuracy`, `perplexity`), `metric` and `baseline`.
        title: Stands above.

    Raises:
        ValueError: When there is no row.
    """
    if not results["rows"]:
        raise ValueError("there must be at least one row to be drawn, got none")
    curves: dict[str, list[Point]] = {}
    for row in results["rows"]:
        curves.setdefault(row["strategy"], []).append(row)
    figure = create_figure(7, 4.4)
    axes = figure.add_subplot()
    what = find_figure(results["metric"], results["rows"])
    _draw_points(axes, curves, what, choose_scores(list(curves)), results["baseline"].get(what))
    _finish(axes, title)
    return figure


def draw_retentions(runs: Mapping[str, Sequence[Point]], title: str = "") -> Figure:
    """Returns the figure of several networks, each pruned by magnitude: what each keeps of its own performance.

    Args:
        runs: By name points with `sparsity` and `retention`.
        title: Stands above.

    Raises:
        ValueError: When there is no point.
    """
    if not any(runs.values()):
        raise ValueError("there must be at least one sparsity to be drawn, got none")
    figure = create_figure(7, 4.4)
    axes = figure.add_subplot()
    looks = {name: choose_runs(number) for number, name in enumerate(runs)}
    _draw_points(axes, runs, "retention", looks, 1.0)
    _finish(axes, title)
    return figure


def _draw_points(
    axes: Axes,
    curves: Mapping[str, Sequence[Point]],
    what: str,
    looks: Mapping[str, Look],
    baseline: float | None,
) -> None:
    scale = POINTS if what in ("accuracy", "retention") else 1.0
    unpruned = make_drawable(baseline, scale)
    if not math.isnan(unpruned):
        draw_level(axes, unpruned, "not pruned")
    shown: list[float] = []
    for number, (name, points) in enumerate(curves.items()):
        look, above = looks[name], min(len(curves) - 1 - number, MOST_WIDENED)
        ordered = sorted(points, key=lambda point: point["sparsity"])
        values = [make_drawable(point.get(what), scale) for point in ordered]
        places = [POINTS * point["sparsity"] for point in ordered]
        axes.plot(
            places,
            values,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            markersize=5 + 2 * above,  # so that equal curves are seen beneath each other
            linewidth=1.3 + 1.2 * above,
            label=show_words(name),
        )
        unit = " %" if scale == POINTS else ""
        for place, value in zip(places, values, strict=True):
            if not math.isnan(value):
                shown.append(value)
                add_mark(axes, place, value, f"{name}, sparsity {place:g} %: {what} {value:.4g}{unit}, one measurement")
    if what in ("perplexity", "loss") and shown and min(shown) > 0 and max(shown) / min(shown) > LEAST_LOG_RATIO:
        axes.set_yscale("log")
    label = {"accuracy": "accuracy, %", "perplexity": "perplexity", "loss": "mean loss"}
    axes.set_ylabel(label.get(what, "performance kept, % of the network's own"))


def _finish(axes: Axes, title: str) -> None:
    axes.set_xlabel("sparsity, % of the weights removed (not retrained)")
    axes.set_title(show_words(title, 60))
    draw_grid(axes)
    axes.legend(frameon=False, fontsize="small")

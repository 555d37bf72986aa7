"""The loss landscape around a model: a figure from saved results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from statistical_report_generator.figures.style import (
    BLUE,
    GREY,
    VERMILION,
    add_mark,
    create_figure,
    draw_grid,
    make_drawable,
)
from statistical_report_generator.figures.words import show_words

MISSING: Final = "0.85"
NUM_LEVELS: Final = 20
NUM_LABELLED: Final = 4  # of the levels, every fourth
HIGHEST_SHARE: Final = 0.95  # of the points; the highest losses would leave no level for the others
LEAST_LOG_RATIO: Final = 4.0  # of losses that are shown on a logarithmic scale

Rows = Sequence[Sequence[float | None]]
Values = NDArray[np.float64]


def draw_loss_landscape(results: Mapping[str, Any]) -> Figure:
    """Returns the figure of a loss landscape, finished or not.

    A plane is drawn as contours of the loss, on logarithmic levels when the losses differ by a factor of four or more,
    up to the loss that 95 % of the points stay below; the centre, the model itself, is a cross. What is not known,
    because the loss is not finite or not measured yet, is grey. A line, and a plane of a single row or column, is drawn
    as curves of loss and, when it is known, accuracy.

    Args:
        results: As `compute_loss_landscape` returns and `save_results` stores them; read are `mode`, `x`, `y`,
            `losses`, `accuracies`, `centre`, and, where they are there, `settings`, `num_nonfinite`, `num_measured` and
            `network`.

    Raises:
        ValueError: When there is no point.
    """
    x, y = np.array(results["x"], dtype=float), np.array(results["y"], dtype=float)
    losses = _to_array(results["losses"])
    if not losses.size:
        raise ValueError("results must hold at least one point to be drawn, got none; measure with grid_points >= 1")
    figure = create_figure(6.4, 5.2)
    if min(losses.shape) > 1:
        axes = figure.add_subplot()
        _draw_contours(figure, axes, x, y, losses)
        axes.set_xlabel("x: along a random direction, in lengths of the weights")
        axes.set_ylabel("y: along another")
    else:
        _draw_curves(figure, results, x if len(x) >= len(y) else y, losses.ravel())
    figure.suptitle(_describe(results, losses), fontsize="medium")
    return figure


def _to_array(rows: Rows) -> Values:
    return np.array([[make_drawable(value) for value in row] for row in rows], dtype=float)


def _describe(results: Mapping[str, Any], losses: Values) -> str:
    name = show_words(results.get("network", "loss landscape"), 60)
    centre = results["centre"]["loss"]
    parts = [f"{name}: loss at the centre {'not finite' if centre is None else format(centre, '.4g')}"]
    if results["mode"] == "plane" and "seed" in results.get("settings", {}):
        parts.append(f"seed {results['settings']['seed']}")
    if results.get("num_nonfinite"):
        parts.append(f"{results['num_nonfinite']} of {losses.size} points not finite")
    if results.get("num_measured", losses.size) < losses.size:
        parts.append(f"{results['num_measured']} of {losses.size} points measured")
    return "; ".join(parts)


def _draw_contours(figure: Figure, axes: Axes, x: Values, y: Values, losses: Values) -> None:
    axes.set_facecolor(MISSING)
    levels, norm = _choose_levels(losses)
    if len(levels):
        shown = np.ma.masked_invalid(losses)
        filled = axes.contourf(x, y, shown, levels=levels, norm=norm, cmap="viridis", extend="both")
        lines = axes.contour(x, y, shown, levels=levels[::NUM_LABELLED], colors="white", linewidths=0.8)
        axes.clabel(lines, fmt="%.3g", fontsize="x-small")
        bar = figure.colorbar(filled, ax=axes, ticks=levels[::NUM_LABELLED])
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        bar.set_label("loss")
    else:
        words = "no loss is known" if np.isnan(losses).all() else f"one loss everywhere: {np.nanmax(losses):.4g}"
        axes.text(0.5, 0.75, words, ha="center", transform=axes.transAxes)
    for (row, column), loss in np.ndenumerate(losses):
        if not math.isnan(loss):
            add_mark(axes, float(x[column]), float(y[row]), f"({x[column]:.3g}, {y[row]:.3g}): loss {loss:.4g}")
    axes.locator_params(nbins=5)
    axes.plot(0, 0, marker="x", color=VERMILION, markersize=10, markeredgewidth=2.5)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])


def _choose_levels(losses: Values) -> tuple[Values, Normalize]:
    """Returns ascending levels from the lowest loss to that which most points stay below, and their scale.

    Without a range there is no level.
    """
    known = losses[~np.isnan(losses)]
    if not known.size:
        return known, Normalize()
    low, high = float(known.min()), float(np.quantile(known, HIGHEST_SHARE))
    if high <= low:
        high = float(known.max())
    is_log = low > 0 and high / low >= LEAST_LOG_RATIO
    levels = np.geomspace(low, high, NUM_LEVELS) if is_log else np.linspace(low, high, NUM_LEVELS)
    if not bool((np.diff(levels) > 0).all()):
        return known[:0], Normalize()
    return levels, (LogNorm if is_log else Normalize)(levels[0], levels[-1])


def _draw_curves(figure: Figure, results: Mapping[str, Any], places: Values, losses: Values) -> None:
    accuracies = _to_array(results["accuracies"]).ravel()
    has_accuracies = not bool(np.isnan(accuracies).all())
    panels = figure.subplots(1 + has_accuracies, 1, sharex=True, squeeze=False)[:, 0]
    curves = [(losses, "loss", BLUE), (accuracies, "accuracy", VERMILION)]
    for axes, (values, label, colour) in zip(panels, curves[: len(panels)], strict=True):
        axes.plot(places, values, color=colour, marker="o", markersize=4, linewidth=1.2, label=label)
        axes.set_ylabel(label)
        for place, value in zip(places, values, strict=True):
            if not math.isnan(value):
                add_mark(axes, float(place), float(value), f"at {place:.3g}: {label} {value:.4g}, one measurement")
        draw_grid(axes)
        axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
        if results["mode"] == "line":
            axes.axvline(1, color=GREY, linewidth=1, linestyle=":")
    is_line = results["mode"] == "line"
    panels[-1].set_xlabel("share of the other network: 0 is the model, 1 the other" if is_line else "random direction")

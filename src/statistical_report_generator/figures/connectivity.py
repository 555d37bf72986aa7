"""Linear mode connectivity in figures: the error along a line, and instability over rewinding steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from statistical_report_generator.figures.style import (
    STYLES,
    add_mark,
    create_figure,
    draw_grid,
    draw_intervals,
    draw_level,
    make_drawable,
)
from statistical_report_generator.figures.ticks import space_out
from statistical_report_generator.figures.words import show_words
from statistical_report_generator.tables import POINTS

THRESHOLD: Final = 0.02  # Frankle et al. 2020

Row = Mapping[str, Any]


def draw_error_path(results: Mapping[str, Any], title: str = "") -> Figure:
    """Returns the figure of the error, or of the loss where there is no accuracy, along the line between two networks.

    Args:
        results: As `compute_linear_connectivity` returns; read are `pairs`, one line each, and of `settings` the
            threshold. Points that are None leave a gap.
        title: Stands above.

    Raises:
        ValueError: When there is no pair.
    """
    if not results["pairs"]:
        raise ValueError("results must hold at least one pair to be drawn, got none")
    has_error = all(pair["errors"] is not None for pair in results["pairs"])
    figure = create_figure(7, 4.2)
    axes = figure.add_subplot()
    for number, pair in enumerate(results["pairs"]):
        colour, marker = STYLES[number % len(STYLES)]
        values = [make_drawable(error, POINTS) for error in pair["errors"]] if has_error else None
        losses = [make_drawable(loss) for loss in pair["losses"]]
        label = f"pair {number}" if len(results["pairs"]) > 1 else None
        axes.plot(pair["alphas"], values or losses, color=colour, marker=marker, markersize=4, label=label)
        for alpha, value in zip(pair["alphas"], values or losses, strict=True):
            if not math.isnan(value):
                what = f"error {value:.4g} %" if has_error else f"loss {value:.4g}"
                add_mark(axes, alpha, value, f"pair {number}, alpha {alpha:.3g}: {what}, one measurement")
    if has_error:
        ends = [pair[end]["error"] for pair in results["pairs"] for end in ("first", "second")]
        limit = POINTS * (sum(ends) / len(ends) + results["settings"]["threshold"])
        words = f"mean of the ends + {POINTS * results['settings']['threshold']:g} points"
        draw_level(axes, limit, words)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    axes.set_xlabel("position on the line between the two networks, alpha")
    axes.set_ylabel("error, %" if has_error else "loss")
    axes.set_title(show_words(title, 60))
    draw_grid(axes)
    return figure


def draw_instability(panels: Mapping[str, Sequence[Row]], threshold: float = THRESHOLD) -> Figure:
    """Returns the figure of instability over rewinding steps: one panel a study, one line a network, with intervals.

    Args:
        panels: By title, rows with `step`, `network` (what the line is called) and `instability` (an `Interval`, or
            its dict). Steps are on a logarithmic axis that begins with 0.
        threshold: Where training counts as stable; drawn as a line.

    Raises:
        ValueError: When there is no row.
    """
    if not panels or not all(panels.values()):
        raise ValueError("there must be at least one row in each panel to be drawn, got none")
    figure = create_figure(5.6 * len(panels), 4.2)
    for axes, (title, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw_panel(axes, rows, threshold)
        axes.set_title(show_words(title, 60))
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row], threshold: float) -> None:
    steps = sorted({row["step"] for row in rows})
    places = {step: _place(step, steps) for step in steps}
    for number, network in enumerate(dict.fromkeys(row["network"] for row in rows)):
        colour, marker = STYLES[number % len(STYLES)]
        chosen = sorted((row for row in rows if row["network"] == network), key=lambda row: row["step"])
        shift = 1 + 0.04 * number  # so that intervals do not hide each other
        draw_intervals(
            axes,
            [places[row["step"]] * shift for row in chosen],
            [row["instability"] for row in chosen],
            scale=POINTS,
            colour=colour,
            marker=marker,
            label=show_words(str(network)),
        )
    draw_level(axes, POINTS * threshold, f"stable below {threshold:.0%}")
    axes.set_xscale("log")
    if len(steps) == 1:  # or the shifts would look like steps
        [place] = places.values()
        axes.set_xlim(place / 2, place * 2)
    by_place = {place: step for step, place in places.items()}
    shown = space_out(list(places.values()))
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{by_place.get(place, 0):,}"))
    axes.set_xlabel("rewinding step k (0 stands where the axis begins)")
    axes.set_ylabel("instability, points of error")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    draw_grid(axes)
    axes.legend(frameon=False)


def _place(step: int, steps: Sequence[int]) -> float:
    """Returns where a step stands on a logarithmic axis: 0 at a third of the first step after it."""
    return step or min((other for other in steps if other), default=3) / 3

"""Several experiments in one figure: each one's tickets over the share of weights that are left."""

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from statistical_report_generator.figures.palette import choose_runs
from statistical_report_generator.figures.style import create_figure, draw_grid, draw_intervals
from statistical_report_generator.figures.ticks import space_out
from statistical_report_generator.figures.words import show_words
from statistical_report_generator.inference.intervals import BranchSummary
from statistical_report_generator.tables import POINTS

DODGE: Final = 1.02  # from one run to the next, on the logarithmic axis: no interval hides another


def draw_comparison(runs: Mapping[str, Sequence[BranchSummary]], label: str, scale: float) -> Figure:
    """Returns the figure of several experiments: the tickets of each, means with intervals, densest first.

    Args:
        runs: By name the summaries of an experiment.
        label: Of the vertical axis, with its unit.
        scale: What the metric is multiplied by.

    Raises:
        ValueError: When there is no run.
    """
    if not runs:
        raise ValueError("there must be at least one run to be drawn, got none")
    figure = create_figure(8, 4.8)
    axes = figure.add_subplot()
    densities: set[float] = set()
    for number, (name, summaries) in enumerate(runs.items()):
        look = choose_runs(number)
        tickets = [one for one in summaries if one.branch == "ticket" and one.density > 0]
        places = [POINTS * one.density * DODGE ** (number - (len(runs) - 1) / 2) for one in tickets]
        densities |= {POINTS * one.density for one in tickets}
        draw_intervals(
            axes,
            places,
            [one.value for one in tickets],
            scale=scale,
            colour=look.colour,
            marker=look.marker,
            linestyle=look.line,
            label=show_words(name),
        )
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(space_out(sorted(densities, reverse=True)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights remaining, %")
    axes.set_ylabel(label)
    draw_grid(axes, "y")
    axes.legend(frameon=False)
    return figure

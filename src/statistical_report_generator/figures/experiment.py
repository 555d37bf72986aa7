"""The figure of an experiment: accuracy over the share of weights that are left."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from statistical_report_generator.figures.style import (
    STYLES,
    create_figure,
    draw_grid,
    draw_intervals,
    draw_level,
)
from statistical_report_generator.inference.intervals import BranchSummary
from statistical_report_generator.tables import POINTS

LABELS: Final = {
    "ticket": "ticket",
    "reinitialised": "reinitialised",
    "shuffled": "shuffled mask",
    "random": "random mask, fresh weights",
}


def draw_accuracy_over_density(summaries: Sequence[BranchSummary], title: str) -> Figure:
    """Returns the figure of the papers: test accuracy over the percentage of weights remaining, with intervals.

    Args:
        summaries: Of one experiment.
        title: Stands above.
    """
    figure = create_figure(8, 4.8)
    axes = figure.add_subplot()
    dense = summaries[0].value
    draw_level(axes, POINTS * dense.mean, "dense")
    if dense.low is not None and dense.high is not None:
        axes.axhspan(POINTS * dense.low, POINTS * dense.high, color="0.9", zorder=0)
    for (branch, label), (colour, marker) in zip(LABELS.items(), STYLES, strict=True):
        chosen = [summary for summary in summaries if summary.branch == branch]
        if chosen:
            draw_intervals(
                axes,
                [POINTS * summary.density for summary in chosen],
                [summary.value for summary in chosen],
                scale=POINTS,
                colour=colour,
                marker=marker,
                label=label,
                linewidth=1.5 if branch == "ticket" else 1,
            )
    _label_densities(axes, summaries)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(title)
    draw_grid(axes, "y")
    axes.legend(frameon=False)
    return figure


def _label_densities(axes: Axes, summaries: Sequence[BranchSummary]) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    densities = [POINTS * summary.density for summary in summaries if summary.branch == "ticket"]
    axes.set_xticks(densities[:: max(1, len(densities) // 8)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights remaining, %")

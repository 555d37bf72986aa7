"""The figure of an experiment: accuracy over the share of weights that are left."""

from collections.abc import Mapping, Sequence
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
from statistical_report_generator.figures.ticks import space_out
from statistical_report_generator.figures.words import show_words
from statistical_report_generator.inference.intervals import BranchSummary
from statistical_report_generator.tables import POINTS

LABELS: Final = {
    "ticket": "ticket",
    "reinitialised": "reinitialised",
    "shuffled": "shuffled mask",
    "random": "random mask, fresh weights",
    "exponents": "shuffled within exponents",
    "super": "shuffled, super weights kept",
}
# Branches of one density stand side by side, so that no interval hides another: factors on the logarithmic axis.
DODGES: Final = {
    "ticket": 1.0,
    "reinitialised": 1.03,
    "shuffled": 0.97,
    "random": 0.94,
    "exponents": 1.03,  # of change masks alone, as "super" is: they have no fresh weights
    "super": 0.94,
}
RUNS_BESIDE: Final = 0.987  # single runs stand beside the bar of their mean
POINT_SIZE: Final = 12.0  # square points; of single runs
OPACITY: Final = 0.5

Values = Mapping[tuple[int, str], Mapping[int, float]]  # by level and branch, then by replicate


def draw_accuracy_over_density(summaries: Sequence[BranchSummary], title: str, values: Values | None = None) -> Figure:
    """Returns the figure of the papers: test accuracy over the percentage of weights remaining, with intervals.

    Args:
        summaries: Of one experiment.
        title: Stands above.
        values: The accuracies of single runs, drawn as faint points; none when None.
    """
    figure = create_figure(8, 4.8)
    axes = figure.add_subplot()
    dense = summaries[0].value
    draw_level(axes, POINTS * dense.mean, "dense")
    if dense.low is not None and dense.high is not None:
        axes.axhspan(POINTS * dense.low, POINTS * dense.high, color="0.9", zorder=0)
    for (branch, label), (colour, marker) in zip(LABELS.items(), STYLES, strict=True):
        chosen = [summary for summary in summaries if summary.branch == branch and summary.density > 0]
        if chosen:
            draw_intervals(
                axes,
                [POINTS * summary.density * DODGES[branch] for summary in chosen],
                [summary.value for summary in chosen],
                scale=POINTS,
                colour=colour,
                marker=marker,
                label=label,
                linewidth=1.5 if branch == "ticket" else 1,
            )
            _draw_runs(axes, chosen, values or {}, colour, marker)
    _label_densities(axes, summaries)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(show_words(title, 60))
    draw_grid(axes, "y")
    axes.legend(frameon=False)
    return figure


def _draw_runs(axes: Axes, chosen: Sequence[BranchSummary], values: Values, colour: str, marker: str) -> None:
    found = [(one, value) for one in chosen for value in values.get((one.level, one.branch), {}).values()]
    axes.scatter(
        [POINTS * one.density * DODGES[one.branch] * RUNS_BESIDE for one, _ in found],
        [POINTS * value for _, value in found],
        s=POINT_SIZE,
        color=colour,
        marker=marker,
        alpha=OPACITY,
        linewidths=0,
        zorder=1,
    )


def _label_densities(axes: Axes, summaries: Sequence[BranchSummary]) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    densities = sorted(
        {POINTS * one.density for one in summaries if one.branch == "ticket" and one.density}, reverse=True
    )
    axes.set_xticks(space_out(densities))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights remaining, %")

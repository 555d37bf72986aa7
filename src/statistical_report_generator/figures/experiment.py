"""Figures, drawn with matplotlib's object interface: no window, no global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from statistical_report_generator.inference.intervals import BranchSummary, Interval
from statistical_report_generator.tables import POINTS

# The colours of Okabe and Ito, which colour-blind readers can tell apart; markers tell them apart in grey.
STYLES: Final = {
    "ticket": ("#0072B2", "o", "ticket"),
    "reinitialised": ("#D55E00", "s", "reinitialised"),
    "shuffled": ("#009E73", "^", "shuffled mask"),
    "random": ("#CC79A7", "v", "random mask, fresh weights"),
}


def draw_accuracy_over_density(summaries: Sequence[BranchSummary], title: str) -> Figure:
    """Returns the figure of the papers: test accuracy over the percentage of weights remaining, with intervals.

    Args:
        summaries: Of one experiment.
        title: Stands above.
    """
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    dense = summaries[0].value
    axes.axhline(POINTS * dense.mean, color="0.4", linewidth=1, linestyle="--", label="dense")
    if dense.low is not None and dense.high is not None:
        axes.axhspan(POINTS * dense.low, POINTS * dense.high, color="0.9", zorder=0)
    for branch in STYLES:
        _draw_branch(axes, [summary for summary in summaries if summary.branch == branch], branch)
    _label_densities(axes, summaries)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(title)
    axes.grid(visible=True, axis="y", color="0.92")
    axes.legend(frameon=False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG at 150 dots an inch, without a date in it."""
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def _draw_branch(axes: Axes, summaries: Sequence[BranchSummary], branch: str) -> None:
    if not summaries:
        return
    colour, marker, label = STYLES[branch]
    errors = [_find_errors(summary.value) for summary in summaries]
    axes.errorbar(
        [POINTS * summary.density for summary in summaries],
        [POINTS * summary.value.mean for summary in summaries],
        yerr=[[low for low, _ in errors], [high for _, high in errors]],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.5 if branch == "ticket" else 1,
        capsize=2,
        label=label,
    )


def _find_errors(interval: Interval) -> tuple[float, float]:
    if interval.low is None or interval.high is None:
        return 0.0, 0.0
    return POINTS * (interval.mean - interval.low), POINTS * (interval.high - interval.mean)


def _label_densities(axes: Axes, summaries: Sequence[BranchSummary]) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    densities = [POINTS * summary.density for summary in summaries if summary.branch == "ticket"]
    axes.set_xticks(densities[:: max(1, len(densities) // 8)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights remaining, %")

"""How a ticket learns beside its controls and the dense network: a figure of the validation over training steps."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from statistical_report_generator.figures.palette import BRANCHES
from statistical_report_generator.figures.style import add_mark, create_figure, draw_grid, make_drawable
from statistical_report_generator.figures.words import show_words
from statistical_report_generator.tables import POINTS

NAMES: Final = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")  # the first that all have
MOST_LEVELS: Final = 3
FAINT: Final = 0.2

Row = Mapping[str, Any]


def choose_levels(results: Mapping[str, Any]) -> list[int]:
    """Returns the levels whose trainings are drawn: those with controls, the sparsest three; else the sparsest.

    Args:
        results: Of an experiment.
    """
    rows = results["trainings"]
    controlled = {
        row["level"] for row in rows if row["level"] and row["branch"] in BRANCHES and row["branch"] != "ticket"
    }
    pruned = {row["level"] for row in rows if row["level"] and row["branch"] == "ticket"}
    return sorted(controlled & pruned)[-MOST_LEVELS:] or sorted(pruned)[-1:]


def find_curve(results: Mapping[str, Any]) -> str | None:
    """Returns what is drawn over steps: the first of `NAMES` that every training has; None where there is none.

    Args:
        results: Of an experiment.
    """
    curves = [row["history"].get("curve", {}) for row in results["trainings"] if row["branch"] in BRANCHES]
    return next((name for name in NAMES if curves and all(curve.get(name) for curve in curves)), None)


def draw_learning(results: Mapping[str, Any], title: str = "") -> Figure:
    """Returns the figure of how tickets and controls learn: a panel a level, lines are means, faint lines single runs.

    Args:
        results: Of an experiment; read are of `trainings` `level`, `branch`, `density` and the `curve` of `history`.
        title: Stands above.

    Raises:
        ValueError: When the trainings have no curve, or no level was pruned.
    """
    name, levels = find_curve(results), choose_levels(results)
    if name is None or not levels:
        raise ValueError("there must be a pruned level whose trainings all have a curve, but there is none to be drawn")
    scale = POINTS if name.endswith("accuracy") else 1.0
    figure = create_figure(3.2 + 3.4 * len(levels), 4.4)
    panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    for axes, level in zip(panels, levels, strict=True):
        for branch in BRANCHES:
            at, of = (0, "ticket") if branch == "dense" else (level, branch)
            runs = [row for row in results["trainings"] if (row["level"], row["branch"]) == (at, of)]
            _draw_branch(axes, runs, branch, name, scale)
        density = next(
            row["density"] for row in results["trainings"] if (row["level"], row["branch"]) == (level, "ticket")
        )
        axes.set_title(f"{POINTS * density:.3g} % of the weights", fontsize="medium")
        axes.set_xlabel("training step")
        axes.locator_params(axis="x", nbins=5)
        draw_grid(axes)
    panels[0].set_ylabel(name.replace("_", " ") + (", %" if scale == POINTS else ""))
    panels[-1].legend(frameon=False, fontsize="small")
    figure.suptitle(show_words(title, 60), fontsize="medium")
    return figure


def _draw_branch(axes: Axes, runs: Sequence[Row], branch: str, name: str, scale: float) -> None:
    if not runs:
        return
    colour, marker, line = BRANCHES[branch]
    curves = [dict(zip(run["history"]["curve"]["step"], run["history"]["curve"][name], strict=True)) for run in runs]
    for curve in curves:
        axes.plot(list(curve), _scale(list(curve.values()), scale), color=colour, alpha=FAINT, linewidth=0.8)
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    means = [statistics.fmean(_scale([curve[step] for curve in curves], scale)) for step in steps]
    every = max(1, len(steps) // 10)
    axes.plot(
        steps,
        means,
        color=colour,
        marker=marker,
        linestyle=line,
        markersize=4,
        markevery=every,
        linewidth=1.5,
        label=f"{branch}, mean of {len(runs)}",
    )
    for step, mean in zip(steps, means, strict=True):
        if not math.isnan(mean):
            add_mark(axes, step, mean, f"{branch}, step {step:g}: mean {mean:.4g} of {len(runs)} runs")


def _scale(values: Sequence[float | None], scale: float) -> list[float]:
    return [make_drawable(value, scale) for value in values]

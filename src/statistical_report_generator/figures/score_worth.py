"""What scores are worth: accuracy and loss of networks pruned by each score, over sparsity."""

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from statistical_report_generator.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
    create_figure,
    draw_grid,
    draw_intervals,
    draw_level,
)
from statistical_report_generator.tables import POINTS

DENSE: Final = "dense"
# More scores than Okabe and Ito have colours: four are ours.
STYLES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "magnitude": (BLACK, "o"),
        "random": ("#999999", "x"),
        "gradient": (ORANGE, "s"),
        "Fisher": (VERMILION, "v"),
        "Taylor": (SKY_BLUE, "^"),
        "saliency": (GREEN, "D"),
        "hybrid": (BLUE, "P"),
        "SNIP": (PURPLE, "<"),
        "GraSP": ("#8C6D1F", ">"),
        "GraSP, unsigned": ("#B8A000", "h"),
        "Wanda": ("#882255", "*"),
    }
)
LINES: Final[Mapping[str, str]] = MappingProxyType({"global": "-", "row": ":"})  # by scope; others are not drawn

Row = Mapping[str, Any]
Limits = tuple[float, float]


def draw_score_worth(panels: Mapping[str, Sequence[Row]], limits: Mapping[str, Mapping[str, Limits]]) -> Figure:
    """Returns the figure of accuracy (above) and loss (below) over sparsity, a column for each network.

    Args:
        panels: By title, rows with `score`, `scope`, `sparsity`, `accuracy` and `loss`, the last two as the dicts of
            intervals. A row of score "dense" is the network that is not pruned. Drawn are the scopes "global", and
            "row" dotted.
        limits: By title, then by "accuracy" (in percent) and "loss" (in nats): the ends of the vertical axis.

    Raises:
        ValueError: When a panel has no row of the dense network, or a score that has no colour.
    """
    for title, rows in panels.items():
        scores = {row["score"] for row in rows}
        if DENSE not in scores or scores - {DENSE, *STYLES}:
            raise ValueError(
                f"the rows of {title!r} must be of {DENSE!r} and of some of {', '.join(STYLES)}, got {sorted(scores)};"
                " add a colour for a new score"
            )
    figure = create_figure(4.4 * len(panels), 7.6)
    grid = figure.subplots(2, len(panels), squeeze=False)
    for column, (title, rows) in enumerate(panels.items()):
        for axes, metric in zip(grid[:, column], ("accuracy", "loss"), strict=True):
            _draw_panel(axes, rows, metric)
            axes.set_ylim(limits[title][metric])
        grid[0, column].set_title(title)
    by_label: dict[str, Any] = {}
    for axes in chain.from_iterable(grid):
        by_label.update({str(label): line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    figure.legend(by_label.values(), by_label.keys(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    scale = POINTS if metric == "accuracy" else 1.0
    dense = next(row for row in rows if row["score"] == DENSE)
    draw_level(axes, scale * dense[metric]["mean"], DENSE)
    for score, (colour, marker) in STYLES.items():
        for scope, linestyle in LINES.items():
            chosen = [row for row in rows if (row["score"], row["scope"]) == (score, scope)]
            if chosen:
                draw_intervals(
                    axes,
                    [1 - row["sparsity"] for row in chosen],
                    [row[metric] for row in chosen],
                    scale=scale,
                    colour=colour,
                    marker=marker,
                    label=score + (", rows" if scope == "row" else ""),
                    linestyle=linestyle,
                    markersize=4,
                )
    sparsities = sorted({row["sparsity"] for row in rows} - {0.0})
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([1 - sparsity for sparsity in sparsities], [f"{POINTS * sparsity:.0f}" for sparsity in sparsities])
    axes.set_xlabel("sparsity, %")
    draw_grid(axes, "y")
    if metric == "accuracy":
        axes.set_ylabel("test accuracy, %")
    else:
        axes.set_yscale("log")
        for setter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            setter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("test loss, nats")

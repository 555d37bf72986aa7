"""The figure of perplexity over sparsity, by score and scope."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from statistical_report_generator.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    create_figure,
    draw_grid,
    draw_intervals,
    draw_level,
)
from statistical_report_generator.tables import POINTS

WANDA: Final = "#882255"  # as in the figure of what scores are worth
STYLES: Final[Mapping[tuple[str, str], tuple[str, str, str]]] = {
    ("Wanda", "row"): (WANDA, "*", "-"),
    ("saliency", "global"): (GREEN, "D", "-"),
    ("magnitude", "global"): (BLACK, "o", "-"),
    ("magnitude", "layer"): (BLUE, "s", "--"),
    ("magnitude", "row"): (BLACK, "^", ":"),
    ("Wanda", "2:4"): (WANDA, "P", "none"),
    ("magnitude", "2:4"): (BLACK, "X", "none"),
}
HIGHEST: Final = 2000.0
TICKS: Final = (20, 50, 100, 200, 500, 1000, 2000)


def draw_perplexity(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns the figure of perplexity over sparsity, with a line for each score and scope.

    Args:
        rows: With `score`, `scope`, `sparsity` and `perplexity`, an interval. One is of score "dense".
    """
    figure = create_figure(7.2, 4.6)
    axes = figure.subplots()
    dense = next(row for row in rows if row["score"] == "dense")
    draw_level(axes, dense["perplexity"]["mean"], "dense")
    for (score, scope), (colour, marker, linestyle) in STYLES.items():
        chosen = [row for row in rows if (row["score"], row["scope"]) == (score, scope)]
        if chosen:
            draw_intervals(
                axes,
                [POINTS * row["sparsity"] for row in chosen],
                [row["perplexity"] for row in chosen],
                scale=1.0,
                colour=colour,
                marker=marker,
                label=f"{score}, {scope}",
                linestyle=linestyle,
            )
    axes.set_yscale("log")
    axes.set_ylim(0.8 * dense["perplexity"]["mean"], HIGHEST)
    axes.set_yticks(TICKS)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sparsity, %")
    axes.set_ylabel("test perplexity")
    draw_grid(axes)
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    return figure

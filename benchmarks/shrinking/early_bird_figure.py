"""The figure of early-bird channels: what accuracy each way gets for its FLOPs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

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
)
from statistical_report_generator.tables import POINTS

LOOKS: Final = {
    "dense": (BLACK, "x", "none"),
    "early-bird": (BLUE, "o", "-"),
    "random": (SKY_BLUE, "P", "--"),
    "thin": (VERMILION, "s", "-"),
    "thin, as much work": (ORANGE, "D", "--"),
    "dense, as much work": (PURPLE, "v", "--"),
    "train, prune, train": (GREEN, "^", "-"),
}
TICKS: Final = (0.1, 0.2, 0.5, 1, 1.5)
SHOWN: Final = (75, 90)  # percent; what is below is said by the table


def draw_channels(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Returns the figure of accuracy over FLOPs, a panel for each network and a line over the shares for each way.

    Args:
        networks: The rows of each, as the study writes them.
    """
    figure = create_figure(10, 4.6)
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axes, (network, rows) in zip(panels, networks.items(), strict=True):
        for way, (colour, marker, linestyle) in LOOKS.items():
            chosen = [row["ways"][way] for row in (rows[:1] if way == "dense" else rows)]
            draw_intervals(
                axes,
                [figures["flops_of_dense"]["mean"] for figures in chosen],
                [figures["accuracy"] for figures in chosen],
                scale=POINTS,
                colour=colour,
                marker=marker,
                label=way if axes is panels[0] else "",
                linestyle=linestyle,
            )
        axes.set_title(network)
        axes.set_xscale("log")
        axes.set_xticks(TICKS)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("FLOPs of all steps, of the dense training's")
        draw_grid(axes)
    panels[0].set_ylim(*SHOWN)
    panels[0].set_ylabel("test accuracy, %")
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    return figure

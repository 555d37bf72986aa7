"""What is known of each layer: its sparsity, or how much of it two masks share beside chance."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from statistical_report_generator.figures.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    add_mark,
    create_figure,
    draw_grid,
)
from statistical_report_generator.figures.words import show_words, tell_apart
from statistical_report_generator.tables import POINTS

MOST_BARS: Final = 40
NUM_BINS: Final = 20
ROW_HEIGHT: Final = 0.24  # inches
EDGES_HEIGHT: Final = 1.5
FAINT: Final[Any] = {"color": BLACK, "alpha": 0.35, "linestyle": "", "marker": "o", "markersize": 4}


def draw_layer_sparsities(
    sparsities: Mapping[str, float],
    overall: float | None,
    title: str = "",
    runs: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Figure:
    """Returns the figure of the share of each layer's weights that is removed.

    Up to 40 layers have a bar each, in the order of the model; of more, bars say how many layers have which sparsity.

    Args:
        sparsities: By layer, each in [0, 1].
        overall: Of all weights together, drawn as a line; None where it is not known.
        title: Stands above.
        runs: By layer the values that its sparsity is the mean of, as faint points on its bar.

    Raises:
        ValueError: When there is no layer.
    """
    if not sparsities:
        raise ValueError("there must be at least one layer to be drawn, got none")
    few = len(sparsities) <= MOST_BARS
    figure = create_figure(7, EDGES_HEIGHT + ROW_HEIGHT * len(sparsities) if few else 4.2)
    axes = figure.add_subplot()
    if few:
        _draw_bars(axes, sparsities)
        for place, name in enumerate(sparsities):
            axes.plot([POINTS * value for value in runs.get(name, ())], [place] * len(runs.get(name, ())), **FAINT)
    else:
        _draw_distribution(axes, sparsities)
    if overall is not None:
        axes.axvline(POINTS * overall, color=VERMILION, linewidth=1.5, linestyle="--", label="all weights together")
        figure.legend(frameon=False, loc="outside lower center")
    axes.set_xlim(0, POINTS)
    axes.set_xlabel("sparsity of the layer, % of its weights removed")
    axes.set_title(show_words(title, 60))
    draw_grid(axes, "x" if few else "y")
    axes.set_axisbelow(True)
    return figure


def _draw_bars(axes: Axes, sparsities: Mapping[str, float]) -> None:
    places = range(len(sparsities))
    # An emptied layer is a layer that the network has lost: it stands out, in grey too.
    colours = [VERMILION if sparsity == 1 else BLUE for sparsity in sparsities.values()]
    bars = axes.barh(places, [POINTS * sparsity for sparsity in sparsities.values()], color=colours, height=0.75)
    for bar, sparsity in zip(bars, sparsities.values(), strict=True):
        bar.set_hatch("//" if sparsity == 1 else "")
    axes.set_yticks(places, tell_apart(list(sparsities)), fontsize="small")
    axes.set_ylim(len(sparsities) - 0.5, -0.5)
    for place, (name, sparsity) in enumerate(sparsities.items()):
        add_mark(axes, POINTS * sparsity, place, f"{name}: {POINTS * sparsity:.2f} % removed")


def _draw_distribution(axes: Axes, sparsities: Mapping[str, float]) -> None:
    edges = [POINTS * number / NUM_BINS for number in range(NUM_BINS + 1)]
    values = [POINTS * sparsity for sparsity in sparsities.values()]
    counts, _, _ = axes.hist(values, bins=edges, color=BLUE, edgecolor="white")
    axes.set_ylabel(f"layers, of {len(sparsities):,}")
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        add_mark(axes, (low + high) / 2, float(count), f"{count:.0f} layers of {low:.0f} to {high:.0f} % sparsity")


def draw_layer_overlaps(layers: Mapping[str, Mapping[str, Any]], method: str, title: str = "") -> Figure:
    """Returns the figure of how much of each layer two masks share, beside what unrelated masks would.

    Args:
        layers: By name `overlap` and `expected`; at most 40 make a legible figure.
        method: The coefficient.
        title: Stands above.

    Raises:
        ValueError: When there is no layer.
    """
    if not layers:
        raise ValueError("there must be at least one layer to be drawn, got none")
    figure = create_figure(7, EDGES_HEIGHT + ROW_HEIGHT * len(layers))
    axes = figure.add_subplot()
    for place, (name, layer) in enumerate(layers.items()):
        found, chance = POINTS * layer["overlap"], POINTS * layer["expected"]
        axes.plot([chance, found], [place, place], color=GREY, linewidth=1)
        axes.plot(chance, place, color=BLACK, marker="|", markersize=10, markeredgewidth=2)
        axes.plot(found, place, color=BLUE, marker="o", markersize=6)
        add_mark(axes, found, place, f"{name}: {found:.2f} % in common, chance gives {chance:.2f} %")
    axes.set_yticks(range(len(layers)), tell_apart(list(layers)), fontsize="small")
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(-2, POINTS + 2)
    axes.set_xlabel(f"{show_words(method)} overlap of the layer, %")
    marks = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="overlap"),
        Line2D([], [], color=BLACK, marker="|", markeredgewidth=2, markersize=10, linestyle="", label="chance"),
    ]
    figure.legend(handles=marks, frameon=False, ncols=2, loc="outside lower center")
    axes.set_title(show_words(title, 60))
    draw_grid(axes, "x")
    return figure


def choose_layers(weights: Mapping[str, float | None], most: int) -> list[str]:
    """Returns the names of the layers that have most of something, in the order they came in; unknowns come last.

    Args:
        weights: By name, what they have.
        most: How many.
    """
    known = {name: -math.inf if weight is None else weight for name, weight in weights.items()}
    ranked = sorted(known, key=known.__getitem__, reverse=True)
    chosen = set(ranked[:most])
    return [name for name in weights if name in chosen]

"""How much masks have in common, each pair beside what chance gives."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from statistical_report_generator.figures.style import add_mark, create_figure
from statistical_report_generator.figures.words import show_words, tell_apart
from statistical_report_generator.tables import POINTS

COLOURS: Final = "viridis"
MOST_WRITTEN: Final = 8  # masks, whose cells have room for numbers
MOST_NAMED: Final = 30  # masks, whose rows have room for names
DARK: Final = 0.55  # below, white letters are read


def draw_overlap_matrix(matrix: Mapping[str, Any], title: str = "") -> Figure:
    """Returns the figure of the overlap of each pair of masks, and beside it what unrelated masks would have.

    Both panels have one scale, from 0 to 100 %. Masks are numbered; the rows name them.

    Args:
        matrix: As `compute_overlap_matrix` returns; read are `names`, `method`, `overlaps` and `expected`.
        title: Stands above.

    Raises:
        ValueError: When there is no mask.
    """
    names = matrix["names"]
    if not names:
        raise ValueError("there must be at least one mask to be drawn, got none")
    side = min(max(2.2, 0.55 * len(names)), 6.0)
    figure = create_figure(2 * side + 3.2, side + 1.3)
    panels = figure.subplots(1, 2, sharey=True)
    numbers = [str(number + 1) for number in range(len(names))]
    every = -(-len(names) // MOST_NAMED)
    norm = Normalize(0, POINTS)
    for axes, key, words in zip(panels, ("overlaps", "expected"), ("found", "by chance"), strict=True):
        values = POINTS * np.array(matrix[key], dtype=float)
        axes.imshow(values, norm=norm, cmap=COLOURS, interpolation="nearest")
        axes.set_title(words, fontsize="medium")
        axes.set_xticks(range(0, len(names), every), numbers[::every])
        axes.set_xlabel("mask")
        for (row, column), value in np.ndenumerate(values):
            add_mark(axes, column, row, f"{names[row]} and {names[column]}: {value:.1f} % {words}")
            if len(names) <= MOST_WRITTEN:
                colour = "white" if value < DARK * POINTS else "black"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize="small")
    labels = [f"{number}  {name}" for number, name in zip(numbers, tell_apart(names, 24), strict=True)]
    panels[0].set_yticks(range(0, len(names), every), labels[::every], fontsize="small")
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=panels, shrink=0.9)
    bar.set_label(f"{show_words(matrix['method'])} overlap, %")
    figure.suptitle(show_words(title, 60), fontsize="medium")
    return figure

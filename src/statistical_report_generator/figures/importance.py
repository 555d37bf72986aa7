"""Where in a layer the important weights are: heat maps of scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from statistical_report_generator.figures.layers import choose_layers
from statistical_report_generator.figures.style import add_mark, create_figure
from statistical_report_generator.figures.words import show_words, tell_apart

MOST_MAPS: Final = 12
MOST_COLUMNS: Final = 4
LEAST_SHARE: Final = 1e-6  # of the largest mean: smaller ones have the palest colour
NOTHING: Final = "0.85"  # where a score is exactly 0

Summary = Mapping[str, Any]


def choose_maps(scores: Mapping[str, Summary]) -> list[str]:
    """Returns the layers whose heat maps are drawn: those with the largest mean scores, at most a dozen.

    Args:
        scores: Summaries by layer.
    """
    with_map = {name: summary.get("mean") for name, summary in scores.items() if summary.get("heat_map")}
    return choose_layers(with_map, MOST_MAPS)


def draw_importance(scores: Mapping[str, Summary], title: str = "") -> Figure:
    """Returns the figure of scores by layer: each cell is the mean score of a block of weights, all on one scale.

    Rows are outputs, columns inputs. The scale is logarithmic, and 0 grey; where a score is negative it is linear and
    symmetric about 0. Drawn are the dozen layers with the largest means.

    Args:
        scores: By layer the summary that `save_results` makes of a tensor; read are `heat_map`, `mean` and `shape`.
        title: Stands above.

    Raises:
        ValueError: When no layer has a heat map.
    """
    names = choose_maps(scores)
    if not names:
        raise ValueError("at least one layer must have a heat map to be drawn, but none has; is there a matrix?")
    maps = {name: np.array(scores[name]["heat_map"], dtype=float) for name in names}
    norm, colours = _choose_norm(list(maps.values()))
    num_columns = min(MOST_COLUMNS, len(names))
    num_rows = -(-len(names) // num_columns)
    figure = create_figure(1.1 + 2.1 * max(2, num_columns), 0.9 + 2.1 * num_rows)
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes, name, label in zip(panels.flat, names, tell_apart(names, 22), strict=False):
        values = maps[name]
        shown = np.ma.masked_equal(values, 0.0) if isinstance(norm, LogNorm) else values
        axes.set_facecolor(NOTHING)
        axes.imshow(shown, norm=norm, cmap=colours, aspect="auto", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        shape = "x".join(map(str, scores[name]["shape"][:5]))
        axes.set_title(f"{label}\n{shape}", fontsize="small")
        for (row, column), value in np.ndenumerate(values):
            add_mark(axes, column, row, f"{name}: mean of this block {value:.3g}")
    for axes in list(panels.flat)[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("inputs", fontsize="small")
    figure.supylabel("outputs", fontsize="small")
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=panels, shrink=0.9)
    bar.set_label("mean score of a block of weights", fontsize="small")
    figure.suptitle(show_words(title, 60), fontsize="medium")
    return figure


def _choose_norm(maps: Sequence[NDArray[np.float64]]) -> tuple[Normalize, str]:
    values = np.concatenate([one.ravel() for one in maps])
    if (values < 0).any():
        end = float(np.abs(values).max())
        return Normalize(-end, end), "RdBu_r"
    known = values[values > 0]
    if not known.size:
        return Normalize(0, 1), "viridis"
    high = float(known.max())
    low = max(float(known.min()), high * LEAST_SHARE)
    if low <= 0 or high <= low or not math.isfinite(high / low):
        return Normalize(0, high), "viridis"
    return LogNorm(low, high), "viridis"

"""What all figures share: colours, markers, grey lines to compare with, error bars, the grid, how they are saved."""

import io
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from statistical_report_generator.inference.intervals import Interval, read_interval

# The colours of Okabe and Ito, which colour-blind readers can tell apart; markers tell lines apart in grey.
BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY_BLUE: Final = "#56B4E9"
GREEN: Final = "#009E73"
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
STYLES: Final = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "v"))
GREY: Final = "0.4"  # lines to compare with
PALE: Final = "0.92"  # the grid
DOTS_PER_INCH: Final = 150


def create_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of this size in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def draw_grid(axes: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Draws a pale grid behind everything."""
    axes.grid(visible=True, axis=axis, color=PALE)


def draw_level(axes: Axes, value: float, label: str, linestyle: str = "--") -> None:
    """Draws a grey horizontal line at a value that others are compared with."""
    axes.axhline(value, color=GREY, linewidth=1, linestyle=linestyle, label=label)


def draw_intervals(
    axes: Axes,
    places: Sequence[float],
    intervals: Sequence[Interval | Mapping[str, Any]],
    *,
    scale: float,
    colour: str,
    marker: str,
    label: str,
    **line: Any,  # noqa: ANN401 - matplotlib's own settings of a line
) -> None:
    """Draws means, joined by a line, with their intervals as error bars; a mean without an interval has none.

    Args:
        axes: Where to.
        places: Along the horizontal axis, one an interval.
        intervals: Or their dicts.
        scale: What means and ends are multiplied by.
        colour: Of the line, its markers and bars.
        marker: At each mean.
        label: In the legend.
        line: How the line differs from the default: `linewidth`, `linestyle`, `markersize`.
    """
    ends = [read_interval(interval) for interval in intervals]
    axes.errorbar(
        places,
        [scale * mean for mean, _, _ in ends],
        yerr=[
            [0.0 if low is None else scale * (mean - low) for mean, low, _ in ends],
            [0.0 if high is None else scale * (high - mean) for mean, _, high in ends],
        ],
        color=colour,
        marker=marker,
        capsize=2,
        label=label,
        **{"markersize": 5, "linewidth": 1.2, **line},
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format that the path ends with: .pdf, .svg, or .png at 150 dots an inch.

    The same figure gives the same bytes each time. The file appears whole: it is written aside, under a name that run
    folders clean up, and renamed.

    Raises:
        ValueError: When the path ends otherwise.
        OSError: When the place cannot be written or the disk is full; the old file is as it was.
    """
    content = _render(figure, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.lottery-tickets.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def _render(figure: Figure, path: Path) -> bytes:
    buffer, suffix = io.BytesIO(), path.suffix.lower()
    if suffix == ".svg":
        with mpl.rc_context({"svg.hashsalt": path.stem}):  # or the names inside the file would be drawn at random
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    elif suffix == ".pdf":
        FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
    elif suffix == ".png":
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    else:
        raise ValueError(f"the name of a figure must end in .pdf, .png or .svg, but is {path.name!r}; name it so")
    return buffer.getvalue()

"""What all figures share: colours, markers, grey lines to compare with, error bars, the grid, how they are saved."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, ScalarFormatter

from statistical_report_generator.files import write_whole
from statistical_report_generator.inference.intervals import Interval, read_interval
from statistical_report_generator.tables import format_interval
from statistical_report_generator.words import spell_out

# The colours of Okabe and Ito, which colour-blind readers can tell apart; markers tell lines apart in grey.
BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY_BLUE: Final = "#56B4E9"
GREEN: Final = "#009E73"
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
STYLES: Final = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "v"), (ORANGE, "D"), (SKY_BLUE, "P"))
GREY: Final = "0.4"  # lines to compare with
PALE: Final = "0.92"  # the grid
LARGEST: Final = 1e100  # beyond, an axis cannot be drawn
DOTS_PER_INCH: Final = 150


@final
@dataclass(frozen=True, eq=False)
class Mark:
    """A place in a figure with what it says to those who point at it.

    Attributes:
        axes: Where it is.
        x: In the units of the axes.
        y: In the units of the axes.
        words: The value with its interval and number of runs.
    """

    axes: Axes
    x: float
    y: float
    words: str


@final
class Drawing(Figure):
    """A figure that knows what its points say; pages show it to those who point at them.

    Attributes:
        marks: In the order in which a reader meets them.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
        self.marks: list[Mark] = []

    def clear(self, keep_observers: bool = False) -> None:  # noqa: FBT001, FBT002 - matplotlib's own
        """Empties the figure."""
        super().clear(keep_observers)
        self.marks = []


def create_figure(width: float, height: float) -> Drawing:
    """Returns an empty figure of this size in inches, whose parts make room for each other."""
    return Drawing(width, height)


def add_mark(axes: Axes, x: float, y: float, words: str) -> None:
    """Says what a point of a figure stands for; nothing is drawn.

    Args:
        axes: Of a figure by `create_figure`; a figure of others has no marks, and keeps none.
        x: In the units of the axes.
        y: In the units of the axes.
        words: The value with its interval and number of runs.
    """
    if isinstance(axes.figure, Drawing):
        axes.figure.marks.append(Mark(axes, x, y, words))


def make_drawable(value: float | None, scale: float = 1.0) -> float:
    """Returns a value as a figure draws it: what is not known, or beyond any axis, leaves a gap.

    Args:
        value: None where it is not finite.
        scale: What it is multiplied by.
    """
    return math.nan if value is None or abs(value) > LARGEST else scale * value


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
    form: str = "#.4g",
    names: Sequence[str] | None = None,
    **line: Any,  # noqa: ANN401 - matplotlib's own settings of a line
) -> None:
    """Draws means, joined by a line, with their intervals as error bars; a mean without an interval has none.

    Each mean is a mark that says what it is, with its interval and the number of its runs.

    Args:
        axes: Where to.
        places: Along the horizontal axis, one an interval.
        intervals: Or their dicts.
        scale: What means and ends are multiplied by.
        colour: Of the line, its markers and bars.
        marker: At each mean.
        label: In the legend, and before what the marks say.
        form: A format of the numbers in the marks.
        names: What the marks call the places, such as "at 64 %"; nothing when None.
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
    for place, name, interval in zip(places, names or [""] * len(places), intervals, strict=True):
        what = " ".join(filter(None, (label, name)))
        value = format_interval(interval, scale=scale, form=form)
        add_mark(axes, place, scale * read_interval(interval)[0], f"{what}: {value}{_count(interval)}")


def _count(interval: Interval | Mapping[str, Any]) -> str:
    num = interval.num_replicates if isinstance(interval, Interval) else interval.get("num_replicates")
    return "" if num is None else f", n = {num}"


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format that the path ends with: .pdf, .svg, or .png at 150 dots an inch.

    The same figure gives the same bytes each time. The file appears whole: it is written aside, under a name that run
    folders clean up, and renamed.

    Raises:
        ValueError: When the path ends otherwise.
        OSError: When the place cannot be written or the disk is full; the old file is as it was.
    """
    write_whole(path, render_figure(figure, path.name))


def render_figure(figure: Figure, name: str) -> bytes:
    """Returns a figure as the bytes of a file: the same each time.

    Args:
        figure: To be drawn.
        name: Of the file; its ending says the format, .pdf, .svg, or .png at 150 dots an inch.

    Raises:
        ValueError: When the name ends otherwise.
    """
    _take_words_as_they_are(figure)
    buffer, suffix = io.BytesIO(), Path(name).suffix.lower()
    if suffix == ".svg":
        with mpl.rc_context({"svg.hashsalt": Path(name).stem}):  # or the names inside would be drawn at random
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
        figure.set_dpi(DOTS_PER_INCH)  # which print_svg leaves at 72
    elif suffix == ".pdf":
        FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
    elif suffix == ".png":
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    else:
        raise ValueError(f"the name of a figure must end in .pdf, .png or .svg, but is {name!r}; name it so")
    return buffer.getvalue()


def _take_words_as_they_are(figure: Figure) -> None:
    """Lets words of results be words: a dollar sign begins no formula, and what has no glyph is spelled out.

    Labels of ticks are written anew when they are drawn; those that matplotlib makes of numbers may be formulas.
    """
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    labels = {axis: set(axis.get_ticklabels()) for axis in axes}
    numbers = [axis for axis in axes if isinstance(axis.get_major_formatter(), (LogFormatter, ScalarFormatter))]
    made = set().union(*(labels[axis] for axis in numbers))
    for text in figure.findobj(Text):
        if text not in made:
            text.set_parse_math(False)
            text.set_text(spell_out(text.get_text().replace(r"\$", "$")))  # some escape what would begin a formula

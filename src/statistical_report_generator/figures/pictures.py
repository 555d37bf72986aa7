"""The figures of a report, drawn once for all that show them: the page, the PDF and the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from matplotlib.figure import Figure

from statistical_report_generator.figures.style import Drawing, render_figure
from statistical_report_generator.words import clean


@final
@dataclass(frozen=True)
class Target:
    """A place in a picture that says something.

    Attributes:
        left: From the left edge, as a fraction of the width.
        top: From the upper edge, as a fraction of the height.
        words: What it says.
    """

    left: float
    top: float
    words: str


@final
@dataclass(frozen=True)
class Picture:
    """A figure as it is shown.

    Attributes:
        svg: The bytes of a file.
        width: In inches.
        targets: What its points say, in the order in which a reader meets them.
    """

    svg: bytes
    width: float
    targets: Sequence[Target]


def make_picture(drawing: Figure, name: str) -> Picture:
    """Returns a figure drawn as SVG, with what its points say.

    Args:
        drawing: The figure.
        name: Of its file, without an ending.
    """
    svg = render_figure(drawing, f"{name}.svg")
    return Picture(svg, drawing.get_figwidth(), _locate(drawing))


def _locate(drawing: Figure) -> list[Target]:
    """Returns where marks lie in a figure that was drawn; such as lie outside of it, or nowhere, are left out."""
    marks = drawing.marks if isinstance(drawing, Drawing) else []
    width, height = drawing.bbox.size
    found = []
    for mark in marks:
        x, y = mark.axes.transData.transform((mark.x, mark.y))
        left, top = float(x / width), float(1 - y / height)
        if mark.axes.bbox.padded(1).contains(x, y):
            found.append(Target(left, top, clean(mark.words)))
    return found

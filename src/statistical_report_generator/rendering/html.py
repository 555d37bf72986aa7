"""A report as one HTML file that needs no network: styles, figures and what makes it answer are inside it."""

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Final

import jinja2
from markupsafe import Markup

from statistical_report_generator.document import MARK, Block, Document
from statistical_report_generator.figures.pictures import Picture
from statistical_report_generator.rendering.vector import Drawer

TEMPLATE: Final = "report.html.j2"
SCRIPT: Final = "report.js"
STYLES: Final = "report.css"
MOST_OPEN: Final = 30  # entries of a table of contents that is shown before anybody asks for it
WIDE_REM: Final = 60  # how wide, at most, a figure is shown of
WIDE: Final = 8.0  # inches
PLACES: Final = 1000  # steps across a figure, in which the places of its points are told


def render_html(document: Document, pictures: Mapping[str, Picture]) -> str:
    """Returns the page; every text is escaped, and the same document gives the same bytes.

    The page lets nothing but its own script run, and fetches nothing; its policy says so to the browser.

    Args:
        document: The report.
        pictures: Its figures by name.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, drawer = _read(SCRIPT), Drawer()
    images = {figure.name: drawer.draw(figure, pictures[figure.name]) for figure in document.list_figures()}
    return environment.from_string(_read(TEMPLATE)).render(
        document=document,
        mark=MARK,
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        styles=Markup(_read(STYLES)),  # noqa: S704 - our own file
        letters=drawer.letters,
        images=images,
        kind_of=_kind_of,
        width_of=lambda figure: f"{WIDE_REM * pictures[figure.name].width / WIDE:.4g}rem",
        points_of=lambda figure: _list_points(pictures[figure.name]),
        is_open=len(document.sections) <= MOST_OPEN,
    )


def _read(name: str) -> str:
    return files("statistical_report_generator.rendering").joinpath(name).read_text(encoding="utf-8")


def _kind_of(block: Block) -> str:
    return type(block).__name__


def _list_points(picture: Picture) -> str:
    """Returns what the points of a figure say, as JSON: places in thousandths from the left and the top, words."""
    places = ([round(PLACES * one.left), round(PLACES * one.top), one.words] for one in picture.targets)
    return json.dumps(list(places), separators=(",", ":"), ensure_ascii=False) if picture.targets else ""

"""A report as one HTML file that needs no network: styles, figures and what makes tables sort are inside it."""

from base64 import b64encode
from importlib.resources import files
from typing import Final

import jinja2

from statistical_report_generator.document import MARK, Block, Document, Figure
from statistical_report_generator.figures.style import render_figure
from statistical_report_generator.rendering.csv import render_csv

TEMPLATE: Final = "report.html.j2"


def render_html(document: Document) -> str:
    """Returns the page; every text is escaped, and the same document gives the same bytes.

    Args:
        document: The report.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("statistical_report_generator.rendering").joinpath(TEMPLATE).read_text(encoding="utf-8")
    functions = {"kind_of": _kind_of, "image_of": _image_of, "csv_of": render_csv}
    return environment.from_string(source).render(document=document, mark=MARK, **functions)


def _kind_of(block: Block) -> str:
    return type(block).__name__


def _image_of(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + b64encode(render_figure(figure.drawing, f"{figure.name}.svg")).decode()

"""A report as a tagged PDF, by typst. Texts reach it as data and never as markup, so none can be read as such."""

import json
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import typst

from statistical_report_generator.document import MARK, Block, Document, Figure, Points, Table, Text, Verdicts
from statistical_report_generator.figures.style import render_figure

TEMPLATE: Final = "report.typ"
DATA: Final = "document.json"


def render_pdf(document: Document) -> bytes:
    """Returns the PDF; the same document gives the same bytes, whatever the day and the time zone.

    Args:
        document: The report.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for figure in document.list_figures():
            (folder / f"{figure.name}.svg").write_bytes(render_figure(figure.drawing, f"{figure.name}.svg"))
        data = {
            "title": document.title,
            "mark": MARK,
            "sections": [
                {"title": section.title, "blocks": [_to_data(block) for block in section.blocks]}
                for section in document.sections
            ],
        }
        (folder / DATA).write_text(json.dumps(data), encoding="utf-8")
        template = files("statistical_report_generator.rendering").joinpath(TEMPLATE).read_text(encoding="utf-8")
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
        content: bytes = typst.compile(
            str(folder / TEMPLATE),
            root=place,
            format="pdf",
            pdf_standards=["ua-1"],
            ignore_system_fonts=True,
            timestamp=0,
        )
        return content


def _to_data(block: Block) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"kind": "text", "words": block.words}
    if isinstance(block, Points):
        return {"kind": "points", "items": list(block.items)}
    if isinstance(block, Verdicts):
        return {"kind": "verdicts", "items": [list(item) for item in block.items]}
    if isinstance(block, Figure):
        return {
            "kind": "figure",
            "file": f"{block.name}.svg",
            "caption": block.caption,
            "alternative": block.alternative,
        }
    return _to_table(block)


def _to_table(table: Table) -> dict[str, Any]:
    aligned = ["right" if place in table.numeric else "left" for place in range(len(table.headings))]
    return {
        "kind": "table",
        "caption": table.caption,
        "headings": list(table.headings),
        "rows": [list(row) for row in table.rows],
        "aligned": aligned,
    }

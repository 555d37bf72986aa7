"""A report as a tagged PDF, by typst. Texts reach it as data and never as markup, so none can be read as such."""

import json
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import typst

from statistical_report_generator.document import MARK, Block, Document, Figure, Points, Table, Text, Verdicts
from statistical_report_generator.figures.pictures import Picture
from statistical_report_generator.words import find_font, spell_out

TEMPLATE: Final = "report.typ"
DATA: Final = "document.json"
WIDE: Final = 8.0  # inches of a figure that is as wide as the text


def render_pdf(document: Document, pictures: Mapping[str, Picture]) -> bytes:
    """Returns the PDF; the same document gives the same bytes, whatever the day and the time zone.

    Args:
        document: The report.
        pictures: Its figures by name.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for figure in document.list_figures():
            (folder / f"{figure.name}.svg").write_bytes(pictures[figure.name].svg)
        data = {
            "title": document.title,
            "mark": MARK,
            "sections": [
                {"title": section.title, "blocks": [_to_data(block, pictures) for block in section.blocks]}
                for section in document.sections
            ],
        }
        (folder / DATA).write_text(json.dumps(_spell_out(data)), encoding="utf-8")
        template = files("statistical_report_generator.rendering").joinpath(TEMPLATE).read_text(encoding="utf-8")
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
        content: bytes = typst.compile(
            str(folder / TEMPLATE),
            root=place,
            format="pdf",
            pdf_standards=["ua-1"],
            ignore_system_fonts=True,
            font_paths=[str(find_font().parent)],
            timestamp=0,
        )
        return content


def _spell_out(data: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns data with words that the fonts have glyphs for: a PDF for readers of all kinds may not have others."""
    if isinstance(data, str):
        return spell_out(data)
    if isinstance(data, dict):
        return {name: _spell_out(value) for name, value in data.items()}
    return [_spell_out(item) for item in data] if isinstance(data, list) else data


def _to_data(block: Block, pictures: Mapping[str, Picture]) -> dict[str, Any]:
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
            "share": min(1.0, pictures[block.name].width / WIDE),
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

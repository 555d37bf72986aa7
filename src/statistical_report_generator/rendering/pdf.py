"""A report as a tagged PDF, by typst. Texts reach it as data and never as markup, so none can be read as such."""

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import typst

from statistical_report_generator.document import MARK, Block, Document, Figure, Points, Table, Text, Verdicts
from statistical_report_generator.figures.pictures import Picture
from statistical_report_generator.rendering.columns import cut_columns, shorten, soften
from statistical_report_generator.words import find_font, spell_out

TEMPLATE: Final = "report.typ"
DATA: Final = "document.json"
PAIR: Final = 2  # columns: a name and its value, which takes the room that is left
LONGEST_NAME: Final = 45  # letters; a column of longer ones takes two fifths of the page
LONGEST_HEADING: Final = 120  # letters; it stands above the column on each page
LONGEST_CAPTION: Final = 900  # letters; it stays with its table
MOST_ROWS: Final = 30  # of a table that is kept on one page
MOST_LETTERS: Final = 1500  # as many as these rows have, in narrow columns
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
            "title": spell_out(document.title),
            "heading": _write(document.title),
            "mark": MARK,
            "sections": [
                {
                    "title": _write(section.title),
                    "blocks": [data for block in section.blocks for data in _to_data(block, pictures)],
                }
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
            font_paths=[str(find_font().parent)],
            timestamp=0,
        )
        return content


def _write(words: str) -> str:
    """Returns words with glyphs that the fonts have, as a PDF for readers of all kinds must, and that may break."""
    return soften(spell_out(words))


def _to_data(block: Block, pictures: Mapping[str, Picture]) -> Iterator[dict[str, Any]]:
    if isinstance(block, Text):
        yield {"kind": "text", "words": _write(block.words)}
    elif isinstance(block, Points):
        yield {"kind": "points", "items": [_write(item) for item in block.items]}
    elif isinstance(block, Verdicts):
        yield {"kind": "verdicts", "items": [[word, _write(sentence)] for word, sentence in block.items]}
    elif isinstance(block, Figure):
        yield {
            "kind": "figure",
            "file": f"{block.name}.svg",
            "share": min(1.0, pictures[block.name].width / WIDE),
            "caption": _write(block.caption),
            "alternative": spell_out(block.alternative),
        }
    else:
        written = replace(
            block,
            caption=_write(shorten(spell_out(block.caption), LONGEST_CAPTION)),
            headings=tuple(_write(shorten(spell_out(heading), LONGEST_HEADING)) for heading in block.headings),
            rows=tuple(tuple(map(_write, row)) for row in block.rows),
        )
        yield from map(_to_table, cut_columns(written))


def _to_table(table: Table) -> dict[str, Any]:
    longest = max(len(row[0]) for row in (table.headings, *table.rows))
    letters = len(table.caption) + sum(map(len, itertools.chain(table.headings, *table.rows)))
    return {
        "kind": "table",
        "caption": table.caption,
        "headings": table.headings,
        "rows": table.rows,
        "shares": len(table.headings) == PAIR and longest > LONGEST_NAME,
        "breaks": len(table.rows) > MOST_ROWS or letters > MOST_LETTERS,
        "aligned": ["right" if place in table.numeric else "left" for place in range(len(table.headings))],
    }

"""The PDF page by page: no page is empty, nothing runs over the edge, no heading stands alone, no letter is missing.

Needs pdftoppm and pdftotext, of Debian's package poppler-utils; skipped where they are not.
"""

import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from statistical_report_generator.document import Document, Points, Section, Table, Text, Verdicts
from statistical_report_generator.rendering.pdf import render_pdf
from tests.statistical_report_generator.rendering.reports import HOSTILE, write_report

DOTS_PER_INCH: Final = 60
SIDE_MM, TOP_MM = 20, 22  # margins
SLACK_MM: Final = 1
FOOT: Final = re.compile(r"\s*\d+ */ *\d+\s*")

pytestmark = pytest.mark.skipif(
    not (shutil.which("pdftoppm") and shutil.which("pdftotext")), reason="needs Debian's package poppler-utils"
)


@dataclass(frozen=True)
class Sheet:
    """A page as it is seen: how dark each dot is, and its lines of words without the page number."""

    ink: NDArray[np.int_]
    lines: Sequence[str]


def look(pdf: Path) -> list[Sheet]:
    subprocess.run(["pdftoppm", "-r", str(DOTS_PER_INCH), "-gray", pdf, pdf.with_suffix("")], check=True)
    text = subprocess.run(["pdftotext", "-layout", pdf, "-"], check=True, capture_output=True, text=True).stdout
    pages = text.split("\f")[:-1]
    images = sorted(pdf.parent.glob(f"{pdf.stem}-*.pgm"))
    assert len(pages) == len(images)
    sheets = []
    for page, path in zip(pages, images, strict=True):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            ink = 255 - np.asarray(image, dtype=int)
        lines = [line.strip() for line in page.splitlines() if line.strip()]
        assert FOOT.fullmatch(lines[-1])
        sheets.append(Sheet(ink, lines[:-1]))
    return sheets


def check(sheets: Sequence[Sheet], headings: Sequence[str]) -> None:
    """Asserts that each page is as it should be."""
    side, top = (round((margin - SLACK_MM) / 25.4 * DOTS_PER_INCH) for margin in (SIDE_MM, TOP_MM))
    for sheet in sheets:
        height = sheet.ink.shape[0]
        assert sheet.ink[top : height - top, side:-side].max() > 128, "an empty page"
        assert sheet.lines
        for margin in (sheet.ink[:, :side], sheet.ink[:, -side:], sheet.ink[:top]):
            assert margin.max() == 0, "ink in a margin"
        foot = sheet.ink[height - top :]
        middle = foot.shape[1] // 2
        assert foot[:, : middle - 60].max() == foot[:, middle + 60 :].max() == 0, "ink beside the page number"
        assert not any(heading.endswith(sheet.lines[-1]) for heading in headings), "a heading at the end of a page"


@pytest.mark.parametrize("style", ["technical", "summary"])
def test_each_page_of_a_report_is_as_it_should_be(style: str, tmp_path: Path) -> None:
    pdf = write_report(tmp_path, style=style)
    sheets = look(pdf)
    page = pdf.with_suffix(".html").read_text(encoding="utf-8")
    check(sheets, re.findall(r"<h2[^>]*>(.*?)</h2>", page))
    words = " ".join(" ".join(line for sheet in sheets for line in sheet.lines).replace("\u200b", "").split())
    assert "[U+6A21][U+578B]" in words
    assert "\ufffd" not in words


WORDS: Final = ("x" * 3000, "a_b/c.d-" * 400, "word " * 400, HOSTILE, "模" * 500, "a\u00a0b" * 300)


def make_hard(words: str, number: int) -> Document:
    """Returns a document of every kind of block, with a heading at another height each time."""
    wide = Table("wide", "Wide.", ("name", *(f"L{n}" for n in range(40))), (("row", *map(str, range(40))),) * 3)
    names = Table("names", words, (words, "x"), ((words, "1"), ("short", words)))
    many = Table("many", "Many.", (words[:40], "value", "more"), tuple((str(n), words[:50], "1") for n in range(70)))
    claim = Verdicts((("undecided", words),))
    filling = [Text(f"line {line}") for line in range(5 * number)]
    return Document(
        words[:300],
        [
            Section("Filling", filling),
            Section(f"Words {words[:200]} stop", [Text(words), Points((words, "x")), claim]),
            Section("Wide", [wide]),
            Section("Names", [names]),
            Section("Many", [many]),
            Section("End", [Text("end")]),
        ],
    )


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_no_words_run_over_the_edge(number: int, tmp_path: Path) -> None:
    document = make_hard(WORDS[number], number)
    pdf = tmp_path / "hard.pdf"
    pdf.write_bytes(render_pdf(document, {}))
    sheets = look(pdf)
    check(sheets, [section.title for section in document.sections])
    found = "\n".join(line for sheet in sheets for line in sheet.lines)
    assert {f"L{n}" for n in range(40)} <= set(found.split())


def test_a_caption_that_is_longer_than_a_page_leaves_no_page_to_its_heading(tmp_path: Path) -> None:
    table = Table("a", "word " * 4000, ("x", "y", "z"), (("1", "2", "3"),) * 3)
    pdf = tmp_path / "long.pdf"
    pdf.write_bytes(render_pdf(Document("title", [Section("A heading", [table])]), {}))
    check(look(pdf), ["A heading"])

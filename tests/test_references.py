"""The papers that the code cites stand on docs/references.md, each once, with a title and what is taken from it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "references.md"
ARXIV_ID = re.compile(r"\b\d{4}\.\d{5}\b")


def listed_rows() -> list[list[str]]:
    """Returns the cells of the page's table rows: arXiv id, authors, title, what is taken."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return [row for row in rows if ARXIV_ID.fullmatch(row[0])]


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "benchmarks", "examples"])
def test_every_cited_paper_is_listed(folder: str) -> None:
    listed = {row[0] for row in listed_rows()}
    paths = [path for pattern in ("*.py", "*.md") for path in (ROOT / folder).rglob(pattern)]
    unlisted = {
        (path.name, cited) for path in paths for cited in ARXIV_ID.findall(path.read_text()) if cited not in listed
    }
    assert not unlisted


def test_every_listed_paper_says_who_what_and_why() -> None:
    rows = listed_rows()
    assert rows
    assert all(len(row) == 4 and all(row) for row in rows)
    assert len({row[0] for row in rows}) == len(rows)

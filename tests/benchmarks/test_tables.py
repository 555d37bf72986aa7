"""The tables in the documentation say what the benchmarks measured."""

from pathlib import Path

import pytest
from benchmarks.tables import fill as tables


def list_pages_with_tables() -> list[Path]:
    return [page for page in tables.PAGES if tables.MARKED.search(page.read_text())]


@pytest.mark.parametrize("page", list_pages_with_tables(), ids=lambda page: page.name)
def test_tables_agree_with_the_figures(page: Path) -> None:
    text = page.read_text()
    assert tables.fill_page(text) == text, "run python -m benchmarks.tables.fill"


def test_every_table_stands_on_a_page() -> None:
    used = {found["name"] for page in tables.PAGES for found in tables.MARKED.finditer(page.read_text())}
    assert used == set(tables.TABLES)

"""The tables in the documentation say what the benchmarks measured."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def load_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_pages_with_tables() -> list[Path]:
    tables = load_tables()
    return [page for page in tables.PAGES if tables.MARKED.search(page.read_text())]


@pytest.mark.parametrize("page", list_pages_with_tables(), ids=lambda page: page.name)
def test_tables_agree_with_the_figures(page: Path) -> None:
    text = page.read_text()
    assert load_tables().fill_page(text) == text, "run benchmarks/tables.py"


def test_every_table_stands_on_a_page() -> None:
    tables = load_tables()
    used = {found["name"] for page in tables.PAGES for found in tables.MARKED.finditer(page.read_text())}
    assert used == set(tables.TABLES)

"""How objects show themselves in a notebook: small tables in HTML, every text escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import Final

MOST_ROWS: Final = 20


def render_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], num_rows: int) -> str:
    """Returns a table as HTML; of many rows the first ones, and how many more there are.

    Args:
        title: Above it.
        headings: Of the columns.
        rows: Their cells.
        num_rows: How many there are.

    Example:
        >>> render_table("A & B", ["name"], [["<b>"]], 1)
        '<table><caption>A &amp; B</caption><tr><th>name</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    lines = [_render_row("th", headings), *(_render_row("td", row) for row in islice(rows, MOST_ROWS))]
    if num_rows > MOST_ROWS:
        more = f"and {num_rows - MOST_ROWS:,} more"
        lines.append(f'<tr><td colspan="{len(headings)}">{more}</td></tr>')
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"


def _render_row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

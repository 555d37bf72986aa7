"""How objects show themselves in a notebook, small tables with every text escaped, and modules at the Tab key."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import islice
from typing import Any, Final

from torch import Tensor

MOST_ROWS: Final = 20
MOST_LETTERS: Final = 60


def render_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], num_rows: int) -> str:
    """Returns a table as HTML; of many rows the first ones, and how many more there are.

    Args:
        title: Above it.
        headings: Of the columns.
        rows: Their cells.
        num_rows: How many there are.

    Examples:
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


class Results(dict[str, Any]):
    """A dict like any other that shows itself in a few lines: what is large in it is counted, not printed.

    Examples:
        >>> Results(verdict="converged", losses=[0.5, 0.25], layers={"fc": 0.9})
        Results(verdict='converged', losses=<list of 2>, layers=<dict of 1>)
    """

    def __repr__(self) -> str:
        shown = [f"{name}={summarise(value)}" for name, value in islice(self.items(), MOST_ROWS)]
        if len(self) > MOST_ROWS:
            shown.append(f"and {len(self) - MOST_ROWS:,} more")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        rows = ((name, summarise(value)) for name, value in self.items())
        return render_table(self._get_title(), ("name", "value"), rows, len(self))

    def _get_title(self) -> str:
        return type(self).__name__


def summarise(value: object) -> str:
    """Returns a value in a few words.

    Args:
        value: Anything.

    Examples:
        >>> summarise([1] * 1000), summarise(0.123456789)
        ('<list of 1,000>', '0.123457')
    """
    if isinstance(value, Tensor):
        return f"<tensor of {'x'.join(map(str, value.shape)) or 'one number'}>"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, set, frozenset)) or type(value) is dict:
        return f"<{type(value).__name__} of {len(value):,}>"
    return _shorten(repr(value))


def _shorten(words: str) -> str:
    return words if len(words) <= MOST_LETTERS else f"{words[: MOST_LETTERS - 1]}…"


def show_only(names: Iterable[str]) -> Callable[[], list[str]]:
    """Returns the `__dir__` of a module that shows these names.

    Examples:
        >>> show_only(["b", "a"])()
        ['a', 'b']
    """
    shown = sorted(names)
    return lambda: shown


def show_own(module: str) -> Callable[[], list[str]]:
    """Returns the `__dir__` of a module that shows the public functions and classes that are defined there.

    Args:
        module: Its `__name__`.
    """

    def list_own() -> list[str]:
        held = vars(sys.modules[module]).items()
        return sorted(n for n, value in held if n[0] != "_" and getattr(value, "__module__", None) == module)

    return list_own

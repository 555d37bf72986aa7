"""What tables are made of."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from statistical_report_generator.tables import format_interval

Columns = Mapping[str, Callable[[Any], str]]
Tables = dict[str, Callable[[], str]]


def make_table(*rows: tuple[str, ...]) -> str:
    """Returns a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def tabulate(records: Iterable[Any], columns: Columns) -> str:
    """Returns a Markdown table of one row a record; each column is its head and what makes a cell of a record."""
    return make_table(tuple(columns), *(tuple(make(record) for make in columns.values()) for record in records))


def show(value: float | None, form: str, *, scale: float = 1.0) -> str:
    """Returns a number times a scale as text, nothing where there is none."""
    return "" if value is None else f"{value * scale:{form}}"


def show_interval(interval: Mapping[str, Any] | None, **options: Any) -> str:  # noqa: ANN401 - those of `format_interval`
    """Returns an interval as text, nothing where there is none."""
    return "" if interval is None else format_interval(interval, **options)

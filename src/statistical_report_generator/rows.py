"""Rows of cells in columns, for the terminal; needs no statistics."""

from collections.abc import Sequence
from typing import Final

GAP: Final = "  "  # between columns


def format_rows(rows: Sequence[Sequence[str]], *, align: str = ">", rule: bool = False) -> str:
    """Returns rows of cells as lines of text, each column as wide as its widest cell; the empty string for no rows.

    Args:
        rows: Of equally many cells each. Headings are a row like any other.
        align: ">" aligns all columns right, "<" left; or one of these characters for each column, such as "<>>".
        rule: Whether a line of dashes follows the first row.

    Raises:
        ValueError: When rows differ in length, or when `align` does not fit them.

    Examples:
        >>> print(format_rows([("name", "kept"), ("fc", "7"), ("output", "12")], align="<>", rule=True))
        name    kept
        ------------
        fc         7
        output    12
    """
    if not rows:
        return ""
    num_columns = len(rows[0])
    if odd := [tuple(row) for row in rows if len(row) != num_columns]:
        raise ValueError(f"each row must have {num_columns} cells as the first has, but one is {odd[0]}; fill it up")
    if set(align) - set("<>") or len(align) not in {1, num_columns}:
        raise ValueError(f"align must be < or >, once or for each of {num_columns} columns, got {align!r}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = align * num_columns if len(align) == 1 else align
    lines = [
        GAP.join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
    if rule:
        lines.insert(1, "-" * (sum(widths) + len(GAP) * (num_columns - 1)))
    return "\n".join(lines)

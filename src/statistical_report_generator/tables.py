"""Tables for the terminal: rows of cells in columns, intervals as text, the summaries of an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from statistical_report_generator.inference.intervals import BranchSummary, Interval, read_interval

HEADINGS: Final = ("density", "branch", "test accuracy %", "minus dense, points", "taken at step")
POINTS: Final = 100.0
GAP: Final = "  "  # between columns


def format_rows(rows: Sequence[Sequence[str]], *, align: str = ">", rule: bool = False) -> str:
    """Returns rows of cells as lines of text, each column as wide as its widest cell; the empty string for no rows.

    Args:
        rows: Of equally many cells each. Headings are a row like any other.
        align: ">" aligns all columns right, "<" left; or one of these characters for each column, such as "<>>".
        rule: Whether a line of dashes follows the first row.

    Raises:
        ValueError: When rows differ in length, or when `align` does not fit them.

    Example:
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


def format_interval(interval: Interval | Mapping[str, Any], *, scale: float = POINTS, form: str = ".2f") -> str:
    """Returns a mean with its interval, such as "98.31 [98.02, 98.60]"; the mean alone where one replicate gives none.

    Args:
        interval: An `Interval`, or its dict.
        scale: What all three numbers are multiplied by; the default turns a fraction into percent.
        form: A format of numbers; "+.2f" shows the sign of a difference.
    """
    mean, low, high = read_interval(interval)
    if low is None or high is None:
        return f"{scale * mean:{form}}"
    return f"{scale * mean:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def make_rows(summaries: Sequence[BranchSummary]) -> list[tuple[str, ...]]:
    """Returns the cells of the table, one row a summary."""
    return [
        (
            f"{POINTS * summary.density:.1f} %",
            "dense" if summary.level == 0 else summary.branch,
            format_interval(summary.value),
            "" if summary.level == 0 else format_interval(summary.minus_dense, form="+.2f"),
            f"{summary.step.mean:,.0f}",
        )
        for summary in summaries
    ]


def format_table(summaries: Sequence[BranchSummary]) -> str:
    """Returns the summaries of an experiment as a table for the terminal."""
    return format_rows([HEADINGS, *make_rows(summaries)], align="<", rule=True)

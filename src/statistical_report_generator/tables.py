"""Summaries as a table for the terminal."""

from collections.abc import Sequence
from typing import Final

from statistical_report_generator.inference.intervals import BranchSummary, Interval

HEADINGS: Final = ("density", "branch", "test accuracy %", "minus dense, points", "taken at step")
POINTS: Final = 100.0


def format_percent(interval: Interval, *, sign: bool = False) -> str:
    """Returns a fraction's interval in percent, such as "98.31 [98.02, 98.60]"."""
    form = "+.2f" if sign else ".2f"
    mean = f"{POINTS * interval.mean:{form}}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{POINTS * interval.low:{form}}, {POINTS * interval.high:{form}}]"


def make_rows(summaries: Sequence[BranchSummary]) -> list[tuple[str, ...]]:
    """Returns the cells of the table, one row a summary."""
    return [
        (
            f"{POINTS * summary.density:.1f} %",
            "dense" if summary.level == 0 else summary.branch,
            format_percent(summary.value),
            "" if summary.level == 0 else format_percent(summary.minus_dense, sign=True),
            f"{summary.step.mean:,.0f}",
        )
        for summary in summaries
    ]


def format_table(summaries: Sequence[BranchSummary]) -> str:
    """Returns a table for the terminal."""
    rows = [HEADINGS, *make_rows(summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])

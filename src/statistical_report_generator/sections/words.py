"""Numbers and names of results in sentences and cells."""

from collections.abc import Iterable, Sequence
from typing import Final

from statistical_report_generator.document import Table
from statistical_report_generator.figures.words import shorten
from statistical_report_generator.tables import POINTS

MOST_ROWS: Final = 200  # of a table
MOST_NAMED: Final = 6  # in a sentence
LONGEST_NAME: Final = 80
LARGEST_WRITTEN: Final = 10**15  # larger counts are written as powers
NOT_FINITE: Final = "not finite"
PERCENTAGES: Final = ("accuracy", "retention")


def form(value: float | None, spec: str = ".4g", missing: str = NOT_FINITE) -> str:
    """Returns a number as a word; where there is none, what that means.

    Args:
        value: Any.
        spec: A format.
        missing: For None.
    """
    return missing if value is None else f"{value:{spec}}"


def percent(share: float | None, spec: str = ".2f", missing: str = NOT_FINITE) -> str:
    """Returns a share in percent, without the unit; where there is none, what that means.

    Args:
        share: 1 is all.
        spec: A format.
        missing: For None.
    """
    return missing if share is None else f"{POINTS * share:{spec}}"


def count(number: int | None, missing: str = "") -> str:
    """Returns a count with its digits in threes.

    Args:
        number: Any.
        missing: For None.
    """
    if number is None:
        return missing
    return f"{number:,}" if abs(number) < LARGEST_WRITTEN else f"{float(number):.4g}"


def figure_of(metric: str, value: float | None) -> str:
    """Returns a performance with its unit.

    Args:
        metric: That it is of.
        value: None when it is not finite.
    """
    if value is None:
        return NOT_FINITE
    return f"{percent(value)} %" if metric in PERCENTAGES else form(value)


def name_cell(name: object) -> str:
    """Returns a name as a cell: of a very long one the middle is left out.

    Args:
        name: Of the results.
    """
    return shorten(str(name), LONGEST_NAME)


def list_names(names: Iterable[object]) -> str:
    """Returns names in a sentence: the first, and how many more there are.

    Args:
        names: Of the results.
    """
    given = [name_cell(name) for name in names]
    more = len(given) - MOST_NAMED
    return ", ".join(given[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def make_table(
    name: str,
    caption: str,
    headings: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    *,
    words: Iterable[int] = (0,),
    left_out: str = "",
) -> Table:
    """Returns a table whose columns are numbers but for some.

    Args:
        name: Of its file.
        caption: What it shows.
        headings: Of the columns.
        rows: Cells.
        words: The columns that are words.
        left_out: What rows are not there, in words; said in the caption.
    """
    numeric = frozenset(range(len(headings))) - set(words)
    return Table(name, f"{caption} {left_out}".strip(), tuple(headings), tuple(rows), numeric)

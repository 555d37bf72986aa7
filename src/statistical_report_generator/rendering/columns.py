"""Tables on paper, which has an edge: wide ones are cut by columns, long words may break."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from statistical_report_generator.document import Table

PAGE_WIDTH: Final = 124  # letters of the smallest size, without any between columns
GAP: Final = 3  # letters of room that each column takes
SPACES: Final = " \t\n\u200b"  # where lines may end
LONG: Final = re.compile(f"[^{SPACES}]{{31,}}")  # words that need not fit into a column or a line
PIECE: Final = 15
BREAK: Final = "\u200b"  # a space of no width


def soften(words: str) -> str:
    """Returns words whose long ones may break, first behind what separates their parts.

    Args:
        words: Any.
    """
    return LONG.sub(lambda found: BREAK.join(_cut(found[0])), words)


def shorten(words: str, most: int) -> str:
    """Returns words of at most so many letters; of longer ones the middle is left out.

    Args:
        words: Any.
        most: Letters, at least 3.

    Examples:
        >>> shorten("layers.17.self_attn.q_proj.weight", 16)
        'layers.1….weight'
    """
    ahead = most // 2
    return words if len(words) <= most else f"{words[:ahead]}…{words[len(words) - (most - ahead - 1) :]}"


def _cut(word: str) -> Iterator[str]:
    for part in re.split(r"(?<=[]_/.,:;=-])", word):
        yield from (part[start : start + PIECE] for start in range(0, len(part), PIECE))


def cut_columns(table: Table) -> list[Table]:
    """Returns a table as one or several that are no wider than a page; each repeats the columns that name the rows.

    Args:
        table: Of any number of columns, its words softened.
    """
    widths = [_measure(table, place) for place in range(len(table.headings))]
    key = _count_keys(table)
    groups: list[list[int]] = [[]]
    for place in range(key, len(widths)):
        if groups[-1] and sum(widths[:key]) + sum(widths[one] for one in groups[-1]) + widths[place] > PAGE_WIDTH:
            groups.append([])
        groups[-1].append(place)
    if len(groups) == 1:
        return [table]
    return [
        _choose(table, [*range(key), *group], f" Part {number} of {len(groups)}.")
        for number, group in enumerate(groups, start=1)
    ]


def _count_keys(table: Table) -> int:
    """Returns how many columns name the rows: those up to the last one of words, where these are few."""
    words = [place for place in range(len(table.headings)) if place not in table.numeric]
    return words[-1] + 1 if words and words[-1] < min(3, len(table.headings) - 1) else min(1, len(table.headings) - 1)


def _measure(table: Table, place: int) -> int:
    """Returns the letters that a column cannot do without: those of its longest word."""
    cells: Sequence[str] = (table.headings[place], *(row[place] for row in table.rows))
    return GAP + max((len(word) for cell in cells for word in re.split(f"[{SPACES}]", cell)), default=0)


def _choose(table: Table, places: Sequence[int], part: str) -> Table:
    return replace(
        table,
        caption=table.caption + part,
        headings=tuple(table.headings[place] for place in places),
        rows=tuple(tuple(row[place] for place in places) for row in table.rows),
        numeric=frozenset(new for new, old in enumerate(places) if old in table.numeric),
    )

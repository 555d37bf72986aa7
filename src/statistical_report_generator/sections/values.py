"""The sections on what an analysis of another package found: its values as a table."""

from typing import Final

from statistical_report_generator.document import Section, Table
from statistical_report_generator.sections.making import describe_making, flatten
from statistical_report_generator.sections.words import MOST_ROWS
from statistical_report_generator.sources import Source

OWN: Final = ("schema", "provenance")


def describe_values(source: Source) -> list[Section]:
    """Returns the sections on values by name, the first of them.

    Args:
        source: What an analysis without a kind of its own returned.
    """
    rows = flatten({name: value for name, value in source.results.items() if name not in OWN})
    left_out = f" The first {MOST_ROWS} of {len(rows):,}." if len(rows) > MOST_ROWS else ""
    caption = f"What the analysis returned.{left_out}"
    table = Table(f"{source.slug}-values", caption, ("value", "is"), tuple(rows[:MOST_ROWS]) or (("none", ""),))
    return [Section("What was found", [table]), describe_making(source)]

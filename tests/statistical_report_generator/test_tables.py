"""Cells stand in columns, and intervals read the same from a dict and from an `Interval`."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statistical_report_generator.inference.intervals import Interval
from statistical_report_generator.rows import format_rows
from statistical_report_generator.tables import format_interval

CELLS = st.text(st.characters(codec="ascii", exclude_categories=["Z", "C"]), max_size=9)
ROWS = st.integers(1, 4).flatmap(lambda num: st.lists(st.tuples(*[CELLS] * num), min_size=1, max_size=5))


@given(ROWS, st.data())
def test_each_cell_stands_in_its_column(rows: list[tuple[str, ...]], data: st.DataObject) -> None:
    num = len(rows[0])
    align = data.draw(st.sampled_from("<>") | st.text("<>", min_size=num, max_size=num))
    widths = [max(len(row[column]) for row in rows) for column in range(num)]
    lines = format_rows(rows, align=align).split("\n")
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        padded, start = line.ljust(sum(widths) + 2 * (num - 1)), 0
        assert line == line.rstrip()
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            found, start = padded[start : start + width], start + width + 2
            is_left = align[column % len(align)] == "<"
            assert found == (cell.ljust(width) if is_left else cell.rjust(width))


def test_a_rule_stands_below_the_headings_as_wide_as_the_table() -> None:
    assert format_rows([("a", "bb"), ("ccc", "d")], rule=True) == "  a  bb\n-------\nccc   d"


def test_no_rows_are_no_lines() -> None:
    assert format_rows([]) == ""
    assert format_rows([], rule=True) == ""


@pytest.mark.parametrize("align", ["", "^", "<>>", "<^"])
def test_an_alignment_that_fits_no_columns_is_an_error(align: str) -> None:
    with pytest.raises(ValueError, match=r"align must be < or >, once or for each of 2 columns"):
        format_rows([("a", "b")], align=align)


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"must have 2 cells as the first has, but one is \('c',\)"):
        format_rows([("a", "b"), ("c",)])


@pytest.mark.parametrize(
    ("interval", "settings", "expected"),
    [
        (Interval(0.98314, 0.98021, 0.98604, 3), {}, "98.31 [98.02, 98.60]"),
        (Interval(-0.01, -0.02, 0.0, 3), {"form": "+.2f"}, "-1.00 [-2.00, +0.00]"),
        (Interval(1.5, 1.25, 1.75, 3), {"scale": 1.0, "form": ".3f"}, "1.500 [1.250, 1.750]"),
        (Interval(0.5, None, None, 1), {}, "50.00"),
    ],
)
def test_intervals_in_words(interval: Interval, settings: dict[str, float | str], expected: str) -> None:
    assert format_interval(interval, **settings) == expected  # type: ignore[arg-type] # settings of two types
    assert format_interval(asdict(interval), **settings) == expected  # type: ignore[arg-type] # as above


def test_what_is_no_interval_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"must be an Interval or its dict, got \(0\.1, 0\.2\)"):
        format_interval((0.1, 0.2))  # type: ignore[arg-type] # the point of the test

"""Every number in a table and at a point of a figure is one of the file, whatever the file holds."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statistical_report_generator.document import Figure, Section, Table
from statistical_report_generator.figures.style import Drawing
from statistical_report_generator.kinds import describe
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions
from tests.statistical_report_generator.every_kind import make_result

# An experiment's tables hold means as well, which tests of their own are about; words and settings are no numbers.
NAMES = (
    *("connectivity", "lines", "early-bird", "landscape", "importance", "ticket", "quality", "robustness"),
    *("overlap", "overlap-matrix", "strategies"),
)
DRAWN = tuple(name for name in NAMES if name != "quality")
FORMS = (".1f", ".2f", ".3f", ".4f", ".3g", ".4g", ".5g", ".3e", "+.2f", ",.0f")
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?")
PLACES = ("pair", "number")  # headings of columns that count rows


def list_sections(results: Any) -> list[Section]:  # noqa: ANN401 - of any kind
    return [section for one in read_sources(results) for section in describe(one, ExperimentOptions())]


def list_numbers(value: Any) -> Iterator[float]:  # noqa: ANN401 - JSON
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from list_numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def list_forms(results: Any) -> set[str]:  # noqa: ANN401 - JSON
    """Returns how each number of a file may be written: as it is, or in percent."""
    numbers = {scale * number for number in list_numbers(results) for scale in (1, 100)}
    return {f"{number:{form}}" for number in numbers for form in FORMS}


def move_shares(results: Any, numbers: list[float]) -> Any:  # noqa: ANN401 - JSON
    """Returns JSON with each number strictly between 0 and 1 replaced, in the same order: intervals stay intervals."""
    shares = sorted({number for number in list_numbers(results) if 0 < number < 1})
    moved = dict(zip(shares, sorted(numbers[: len(shares)]), strict=True))

    def move(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            return {name: move(item) for name, item in value.items()}
        if isinstance(value, list):
            return [move(item) for item in value]
        return moved.get(value, value) if isinstance(value, float) else value

    return move(results)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(numbers=st.lists(st.floats(0.0001, 0.9999), min_size=60, max_size=60))
def test_every_number_of_a_table_is_one_of_the_file(name: str, numbers: list[float]) -> None:
    results = move_shares(make_result(name), numbers)
    known, seen = list_forms(results), 0
    for block in (block for section in list_sections(results) for block in section.blocks):
        if not isinstance(block, Table) or block.name.endswith("settings"):
            continue
        for column in block.numeric:
            if block.headings[column] in PLACES:
                continue
            for row in block.rows:
                for word in NUMBER.findall(row[column]):
                    assert word in known, (block.name, block.headings[column], row[column])
                    seen += 1
    assert seen > 1


@pytest.mark.parametrize("name", DRAWN)
def test_points_of_a_figure_say_numbers_of_the_file(name: str) -> None:
    results = make_result(name)
    if name == "overlap-matrix":
        results["names"] = ["one", "two"]
    known = list_forms(results)
    figures = [block for section in list_sections(results) for block in section.blocks if isinstance(block, Figure)]
    assert figures
    for figure in figures:
        drawing = figure.draw()
        assert isinstance(drawing, Drawing)
        assert drawing.marks, figure.name
        for mark in drawing.marks:
            words = NUMBER.findall(mark.words.replace("fc1", "").replace("fc2", "").replace("fc3", ""))
            assert set(words) & known, mark.words
            assert min(abs(float(word) - mark.y) for word in (f"{mark.y:.12g}", *map(plain, words))) < 1e-9


def plain(word: str) -> str:
    return word.replace(",", "")

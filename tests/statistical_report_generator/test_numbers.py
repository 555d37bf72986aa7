"""Every number in a table and at a point of a figure is one of the file, or the mean of some of its runs."""

import re
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from statistical_report_generator.document import Figure, Section, Table
from statistical_report_generator.figures.style import Drawing
from statistical_report_generator.kinds import describe
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions
from tests.statistical_report_generator.every_kind import make_result

NAMES = (  # words and settings are no numbers
    *(
        "experiment",
        "analysis",
        "connectivity",
        "lines",
        "early-bird",
        "landscape",
        "importance",
        "ticket",
        "quality",
        "robustness",
    ),
    *("overlap", "overlap-matrix", "strategies"),
)
DRAWN = tuple(name for name in NAMES if name not in {"quality", "analysis"})
MATRICES = ("importance", "overlap-matrix")  # their points stand at rows and columns, not at values
FORMS = (".1f", ".2f", ".3f", ".4f", ".3g", ".4g", ".5g", ".3e", "+.2f", ",.0f")
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?")
PLACES = ("pair", "number")  # headings of columns that count rows


def make(name: str) -> dict[str, Any]:
    """Returns results of a kind."""
    if name != "analysis":
        return make_result(name)
    entries = [
        {"name": "quality", "kind": "quality", "status": "finished", "file": None, "seconds": 0.25},
        {"name": "overlap", "kind": "overlap", "status": "failed", "file": None, "seconds": 12.5, "error": "no"},
    ]
    analyses = [{**entry, "expected_seconds": 2 * entry["seconds"]} for entry in entries]  # type: ignore[operator] # a number
    return {"model": {"name": "net"}, "analyses": analyses}


def list_sections(results: Any) -> list[Section]:  # noqa: ANN401 - of any kind
    return [section for one in read_sources(results) for section in describe(one, ExperimentOptions())]


def list_numbers(value: Any) -> Iterator[float]:  # noqa: ANN401 - JSON
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from list_numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def list_means(values: list[float]) -> list[float]:
    """Returns how many values there are, their mean and the ends of its 95 % Student t interval."""
    mean, num = statistics.fmean(values), len(values)
    half = stats.t.ppf(0.975, num - 1) * statistics.stdev(values) / num**0.5
    return [num, mean, *(mean + sign * half for sign in (-1, 1))]


def list_derived(results: Any) -> Iterator[float]:  # noqa: ANN401 - JSON
    """Yields what an experiment's pages say that its file does not: means over runs, and what tickets remove."""
    rows = results.get("trainings", [])
    figures: dict[tuple[int, str], list[dict[str, float]]] = {}
    for row in rows:
        figures.setdefault((row["level"], row["branch"]), []).append(row["history"]["early_stop"])
    for found in figures.values():
        values, dense = ([one["test_accuracy"] for one in group] for group in (found, figures[0, "ticket"]))
        yield from list_means(values)
        yield from list_means([value - other for value, other in zip(values, dense, strict=True)])
        yield statistics.fmean(one["step"] for one in found)
    last = [row["layers"] for row in rows if (row["level"], row["branch"]) == (2, "ticket")]
    for name in last[0] if last else ():
        yield statistics.fmean(1 - one[name]["num_kept"] / one[name]["num_weights"] for one in last)


def list_forms(results: Any) -> set[str]:  # noqa: ANN401 - JSON
    """Returns how each number of a file may be written: as it is, or in percent."""
    found = (*list_numbers(results), *list_derived(results))
    numbers = {scale * number for number in found for scale in (1, 100)}
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
@given(numbers=st.lists(st.floats(0.0001, 0.9999), min_size=120, max_size=120))
def test_every_number_of_a_table_is_one_of_the_file(name: str, numbers: list[float]) -> None:
    results = move_shares(make(name), numbers)
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
    results = make(name)
    known = list_forms(results)
    figures = [block for section in list_sections(results) for block in section.blocks if isinstance(block, Figure)]
    assert figures
    for figure in figures:
        drawing = figure.draw()
        assert isinstance(drawing, Drawing)
        assert drawing.marks, figure.name
        for mark in drawing.marks:
            words = NUMBER.findall(mark.words.replace("fc1", "").replace("fc2", "").replace("fc3", ""))
            assert words
            assert set(words) <= known, mark.words
            places = {f"{place:{form}}" for place in (mark.x, mark.y) for form in FORMS}
            assert name in MATRICES or places & set(words), (mark.words, mark.x, mark.y)

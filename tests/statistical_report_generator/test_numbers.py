"""Every number that a table shows is one of the file."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statistical_report_generator.document import Table
from tests.statistical_report_generator import every_kind
from tests.statistical_report_generator.every_kind import change, describe, list_places, make_result

NAMES = tuple(every_kind.KINDS)
COMPUTED = {"experiment"}  # means and intervals are computed; tests of their own hold them


@pytest.mark.parametrize("name", [name for name in NAMES if name not in COMPUTED])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_number_in_a_table_is_one_of_the_file_to_the_digits_shown(name: str, data: st.DataObject) -> None:
    results = make_result(name)
    places = [place for place in list_places(results) if place and type(read(results, place)) is float]
    for place in data.draw(st.lists(st.sampled_from(places), max_size=4)) if places else []:
        results = change(results, place, round(data.draw(st.floats(0, 1)), data.draw(st.integers(1, 9))))
    try:
        sections = describe(results)
    except ValueError:  # such as an axis that no longer ascends
        return
    numbers = sorted(set(list_numbers(results)))
    counts = {
        float(len(value)) for place in list_places(results) if isinstance(value := read(results, place), dict | list)
    }
    for table in (block for section in sections for block in section.blocks if isinstance(block, Table)):
        for row in table.rows:
            for column in table.numeric:
                for word in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?", row[column]):
                    assert is_one_of(word, [*numbers, *counts]), (table.name, row, word)


def read(value: Any, place: tuple[Any, ...]) -> Any:  # noqa: ANN401 - JSON
    for key in place:
        value = value[key]
    return value


def is_one_of(word: str, numbers: list[float]) -> bool:
    """Returns whether a word is one of the numbers, or a share in percent, or a number beside one, rounded as it is."""
    shown = float(word.replace(",", ""))
    digits, _, power = word.partition("e")
    half = 0.5 * 10.0 ** (int(power or 0) - len(digits.partition(".")[2])) * (1 + 1e-9)
    significant = abs(shown) * 0.5e-2  # three digits at least
    near = max(half, 0.0) if "." in word or power else max(half, significant)
    return any(abs(scale * number - shown) <= near for number in numbers for scale in (1, 100)) or shown < len(numbers)


def list_numbers(value: Any) -> Iterator[float]:  # noqa: ANN401 - JSON
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from list_numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100), st.floats(0, 1) | st.none()), min_size=1, max_size=6))
def test_every_number_of_a_robustness_table_is_one_of_the_file(points: list[tuple[float, float, float | None]]) -> None:
    rows = [
        {
            "sparsity": round(sparsity, 3),
            "actual_sparsity": round(sparsity, 3),
            "loss": round(loss, 3),
            "accuracy": accuracy,
            "perplexity": None,
            "retention": accuracy,
        }
        for sparsity, loss, accuracy in points
    ]
    results = {**every_kind.ROBUSTNESS, "sparsity_curves": {"magnitude": rows}}
    numbers = set(list_numbers(results))
    known = {f"{scale * number:{form}}" for number in numbers for scale in (1, 100) for form in (".4g", ".2f", ".3g")}
    [table] = [
        block
        for section in describe(results)
        for block in section.blocks
        if isinstance(block, Table) and block.name.endswith("sparsities")
    ]
    assert len(table.rows) == len(rows)
    for row in table.rows:
        for column in table.numeric:
            assert row[column] in known | {"not finite", ""}, (row, column)

"""What the sparsest tickets of an experiment keep of each layer: drawn and listed, where it was recorded."""

import copy
from typing import Any

import pytest

from statistical_report_generator.document import Figure, Section, Table
from statistical_report_generator.sections.layers import describe_kept
from statistical_report_generator.sources import Source
from tests.statistical_report_generator.every_kind import change, describe, make_result
from tests.statistical_report_generator.rendering.reports import make_experiment


def make_row(level: int, replicate: int, kept: dict[str, int], branch: str = "ticket") -> dict[str, Any]:
    layers = {name: {"num_weights": 100, "num_kept": num} for name, num in kept.items()}
    return {"level": level, "replicate": replicate, "branch": branch, "layers": layers}


def tell(*rows: dict[str, Any]) -> list[Section]:
    return describe_kept(Source("a", "experiment", {"trainings": list(rows)}))


def get(sections: list[Section]) -> tuple[Figure, Table]:
    [section] = sections
    figure, table = section.blocks
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    return figure, table


def test_the_sparsest_tickets_alone_are_shown_with_each_run() -> None:
    rows = [make_row(0, 0, {"a": 100, "b": 100}), make_row(2, 0, {"a": 0, "b": 50})]
    rows += [make_row(2, 1, {"a": 0, "b": 40}), make_row(2, 1, {"a": 7, "b": 33}, "shuffled")]
    rows += [make_row(1, replicate, {"a": 90, "b": 80}) for replicate in (0, 1, 2)]
    figure, table = get(tell(*rows))
    assert table.headings == ("layer", "weights", "kept, run 0", "kept, run 1")
    assert table.rows == (("a", "100", "0", "0"), ("b", "100", "50", "40"))
    assert figure.alternative == "Of 2 layers the tickets of level 2 remove between 55.00 % of b and 100.00 % of a."
    [axes] = figure.draw().axes
    bars: Any = axes.patches
    assert [bar.get_width() for bar in bars] == pytest.approx([100, 55])
    assert [bar.get_hatch() for bar in bars] == ["//", ""]
    points = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    assert [list(map(float, xs)) for xs in points] == [pytest.approx([100, 100]), pytest.approx([50, 60])]  # type: ignore[arg-type] # numbers
    [line] = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(map(float, line.get_xdata())) == pytest.approx([77.5, 77.5])  # type: ignore[arg-type] # numbers


def test_what_was_not_recorded_is_not_shown() -> None:
    assert tell() == []
    assert tell(make_row(0, 0, {"a": 100})) == []
    assert tell({"level": 1, "replicate": 0, "branch": "ticket"}) == []
    assert tell(make_row(1, 0, {})) == []
    others = make_row(1, 1, {"b": 5}), {"level": 1, "replicate": 2, "branch": "ticket"}
    _, table = get(tell(make_row(1, 0, {"a": 5}), *others))
    assert table.headings[2:] == ("kept, run 0",)


def test_thousands_of_layers_and_runs_are_shown_in_part_and_said() -> None:
    layers = {f"layers.{number}.weight": number % 101 for number in range(10_000)}
    figure, table = get(tell(*(make_row(1, replicate, layers) for replicate in range(31))))
    assert (len(table.rows), len(table.headings)) == (200, 32)
    said = "The 200 layers farthest from the whole, of 10,000. The first 30 of 31 runs."
    assert table.caption == f"Weights that the tickets of level 1 keep of each layer. {said}"
    [axes] = figure.draw().axes
    assert axes.get_ylabel() == "layers, of 10,000"


def test_a_simulation_shows_its_layers_too() -> None:
    rows = [
        {**make_row(level, 0, {"a": 100 - level}, "simulated"), "density": 1 - level / 100, "history": {}}
        for level in (0, 1)
    ]
    sections = describe({"simulated": True, "trainings": rows})
    assert [section.title for section in sections] == ["A simulation", "By layer", "Threats to validity"]


@pytest.mark.parametrize(
    ("name", "by", "match"),
    [
        (
            "num_kept",
            30_001,
            "and keep at most all, got num_moved 27000, num_kept 30001 and num_weights 30000",
        ),
        ("num_moved", 30_001, r"layers\.fc1.weight: a layer must move at most what it keeps"),
        ("num_moved", -1, "num_moved must be greater than or equal to 0"),
        ("num_weights", None, "num_weights must be a valid integer"),
        ("dtype", 16, "dtype must be a valid string"),
    ],
)
def test_counts_that_cannot_be_are_refused(name: str, by: object, match: str) -> None:
    results = make_experiment()
    assert describe(results)
    with pytest.raises(ValueError, match=match):
        describe(change(results, ("trainings", 0, "layers", "fc1.weight", name), by))


def test_older_results_have_no_layers_and_are_told() -> None:
    results = copy.deepcopy(make_result("experiment"))
    for row in results["trainings"]:
        row.pop("layers"), row.pop("share_moved")
    titles = [section.title for section in describe(results)]
    assert "By layer" not in titles
    assert "By run" in titles

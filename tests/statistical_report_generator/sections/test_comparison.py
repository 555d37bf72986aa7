"""Several runs beside each other: one figure, means, and the value of each run."""

from typing import Any

import pytest

from statistical_report_generator import StatisticalReportGenerator
from statistical_report_generator.document import Figure, Section, Table
from tests.statistical_report_generator.every_kind import make_result


def compare(*results: tuple[str, dict[str, Any]]) -> tuple[Section, list[str]]:
    generator = StatisticalReportGenerator()
    for name, one in results:
        generator.add_results(one, name)
    sections = generator.describe().sections
    return sections[0], [section.title for section in sections]


def find_tables(section: Section) -> dict[str, Table]:
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def test_several_runs_are_shown_beside_each_other() -> None:
    results = [(name, make_result("experiment")) for name in ("first", "second")]
    networks = [(f"{name} net", make_result("robustness")) for name in ("first", "second")]
    section, _ = compare(*results, *networks)
    assert section.title == "Runs beside each other"
    tables = find_tables(section)
    table = tables["comparison"]
    assert {row[0] for row in table.rows} == {"first", "second"}
    assert [row[-1] for row in table.rows[:3]] == ["dense", "not matching", "winning"]
    figures = [block.name for block in section.blocks if isinstance(block, Figure)]
    assert figures == ["comparison-test-accuracy", "comparison-robustness"]
    kept = tables["comparison-kept"]
    assert kept.headings == ("run", "at 50 %", "at 90 %")
    assert kept.rows == tuple((f"{name} net", "97.3", "59.5") for name in ("first", "second"))


def test_values_by_run_stand_beside_the_means() -> None:
    results = [(name, make_result("experiment")) for name in ("first", "second")]
    results[1][1]["trainings"] = [row for row in results[1][1]["trainings"] if row["replicate"] != 1]
    section, _ = compare(*results)
    table = find_tables(section)["comparison-runs"]
    seen = 0
    for name, weights, branch, metric, *cells in table.rows:
        rows = dict(results)[name]["trainings"]
        for heading, cell in zip(table.headings[4:], cells, strict=True):
            replicate = int(heading.split()[1])
            found = [
                row
                for row in rows
                if f"{100 * row['density']:.2f}" == weights
                and row["replicate"] == replicate
                and ("dense" if row["level"] == 0 else row["branch"]) == branch
            ]
            values = [f"{100 * row['history']['early_stop'][metric]:.2f}" for row in found]
            assert [cell] == (values or [""])
            seen += len(found)
    assert seen == sum(len(one["trainings"]) for _, one in results)


def test_strategies_that_several_networks_share_are_compared() -> None:
    second = make_result("strategies")
    second["rows"] = [row for row in second["rows"] if row["strategy"] == "magnitude"]
    section, _ = compare(("one", make_result("strategies")), ("two", second))
    table = find_tables(section)["comparison-strategies"]
    assert table.headings == ("run", "strategy", "at 50 %", "at 90 %")
    assert [row[:2] for row in table.rows] == [("one", "magnitude"), ("two", "magnitude")]


@pytest.mark.parametrize("kind", ["experiment", "robustness", "strategies"])
def test_one_alone_is_compared_with_nothing(kind: str) -> None:
    section, titles = compare(("one", make_result(kind)), ("two", make_result("ticket")))
    assert section.title == "one: What was found"
    assert "Runs beside each other" not in titles


def test_parts_of_one_file_are_told_apart_by_their_kind_and_say_how_they_were_made() -> None:
    generator = StatisticalReportGenerator().add_results(make_result("evaluation"), "a")
    sections = generator.describe().sections
    titles = [section.title for section in sections]
    assert len(titles) == len(set(titles))
    assert {"a, quality: What was found", "a, validation: What was found"} < set(titles)
    made = [section for section in sections if section.title.endswith("How it was made")]
    assert len(made) == 4
    assert all("Made by: lottery-tickets score out.json." in str(section.blocks[0]) for section in made)

"""Many results in one report: analyses of one model, what leads, what is drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.document import Figure
from statistical_report_generator.generator import MOST_SHOWN
from statistical_report_generator.reading import read_sources
from tests.statistical_report_generator.every_kind import describe, make_result, tell


def make_analysis(folder: Path, **changes: Any) -> Path:  # noqa: ANN401 - of an entry
    entries: list[dict[str, Any]] = [
        {"name": "quality", "kind": "quality", "status": "finished", "file": "quality.json", "seconds": 1.0},
        {"name": "overlap", "kind": "overlap", "status": "failed", "file": None, "error": "ValueError: no"},
    ]
    entries[0] |= {"conclusion": "all is well", **changes}
    folder.mkdir(exist_ok=True)
    index = {"schema": "lottery-tickets analysis 1", "name": "net", "model": {"name": "net"}, "analyses": entries}
    (folder / "analysis.json").write_text(json.dumps(index))
    (folder / "quality.json").write_text(json.dumps(make_result("quality")))
    return folder


def test_an_analysis_is_its_finished_parts_and_says_what_failed(tmp_path: Path) -> None:
    sources = read_sources(make_analysis(tmp_path / "a"))
    assert [(source.name, source.kind) for source in sources] == [("a", "analysis"), ("a / quality", "quality")]
    words = json.dumps(list(tell(describe(tmp_path / "a"))))
    assert "quality: all is well." in words
    assert "ValueError: no" in words
    generator = StatisticalReportGenerator().add_results(tmp_path / "a")
    assert generator.num_results == 1
    assert generator.describe().title == "Lottery tickets: a"


@pytest.mark.parametrize("file", ["../quality.json", "/etc/passwd", "a/b.json", "", "quality.json\x00", "..\\x.json"])
def test_an_analysis_is_read_beside_its_index_alone(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be the name of a file beside analysis\.json"):
        read_sources(make_analysis(tmp_path / "a", file=file))


def test_a_link_out_of_an_analysis_is_not_followed(tmp_path: Path) -> None:
    folder = make_analysis(tmp_path / "a", file="link.json")
    (folder / "link.json").symlink_to(folder / "quality.json")
    with pytest.raises(ValueError, match="must be the name of a file beside"):
        read_sources(folder)


def test_a_part_that_is_missing_or_of_another_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"because analysis\.json says that it is finished, but is not"):
        read_sources(make_analysis(tmp_path / "a", file="nothing.json"))
    with pytest.raises(ValueError, match=r"must hold results of kind 'robustness', as analysis\.json says, but holds"):
        read_sources(make_analysis(tmp_path / "b", kind="robustness"))


def test_what_was_found_of_all_results_stands_before_how_any_was_made(tmp_path: Path) -> None:
    generator = StatisticalReportGenerator().add_results(make_analysis(tmp_path / "a"))
    generator.add_results(make_result("overlap"), "b")
    titles = [section.title for section in generator.describe().sections]
    assert titles[:3] == ["a: What was run", "a / quality: What was found", "b: What was found"]
    assert titles[3] == "a: How long it took"
    assert titles[-1] == "Methods"


def test_of_many_results_the_first_have_figures_and_the_tables_of_the_others_are_files(tmp_path: Path) -> None:
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path))
    for number in range(18):
        generator.add_results(make_result("ticket"), f"run {number}")
    sections = generator.describe().sections
    found = [section for section in sections if section.title.endswith("What was found")]
    drawn = [any(isinstance(block, Figure) for block in section.blocks) for section in found]
    assert drawn == [True] * MOST_SHOWN + [False] * (18 - MOST_SHOWN)
    words = json.dumps(list(tell(found[-1:])))
    assert f"Its tables are files beside this page; the first {MOST_SHOWN} results have figures." in words
    assert [section.title for section in sections if section.title.startswith("run 17: ")] == [
        "run 17: What was found",
        "run 17: Threats to validity",
    ]
    generator.generate_report()
    assert len(list((tmp_path / "report-files").glob("*thresholds*.csv"))) == 18

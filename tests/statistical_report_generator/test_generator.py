"""A report says what its results say, is the same bytes each time, and takes nothing in them for markup or code."""

import html.parser
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.document import Table
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions, describe_experiment
from tests.statistical_report_generator.claims.made_up import DENSE, move, with_controls
from tests.statistical_report_generator.summaries import make_results

HOSTILE = '<img src=x onerror=alert(1)> #panic("typst") \\input{/etc/passwd} $(reboot) ]] "\' & ../../x'


def make(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    controls = [move(-0.02), move(-0.03), move(-0.04)]
    branches = {(0, "ticket"): DENSE, (1, "ticket"): move(-0.02), **with_controls(2, move(0.001), *controls)}
    return {**make_results(branches), **changes}


def report(folder: Path, *results: Any, name: str = "report", **settings: Any) -> tuple[str, Path]:  # noqa: ANN401 - results of any kind
    generator = StatisticalReportGenerator(ReportConfig(output_dir=folder, **settings))
    for number, one in enumerate(results):
        generator.add_results(one, None if len(results) == 1 else f"run {number}")
    pdf = generator.generate_report(name)
    return pdf.with_suffix(".html").read_text(encoding="utf-8"), pdf


class Page(html.parser.HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_what_was_found_comes_first_with_verdict_and_interval(tmp_path: Path) -> None:
    text, pdf = report(tmp_path, make())
    words = [word for word in Page(text).words if word]
    found = words[words.index("What was found", words.index("Methods")) :]  # the first are the contents
    assert found[1] == (
        "Winning tickets were found at 64.0 % of the weights. "
        "The sparsest that matches the dense network has 64.0 % of the weights."
    )
    assert found[2:5:2] == ["not matching", "winning"]
    titles = ("By level", "By run", "Each claim", "How it was made", "Threats to validity", "Methods")
    assert sorted(titles, key=found.index) == list(titles)
    expected = r"At 64\.0 % of the weights: \+0\.10 \[.*\] points against the dense network; it is matching and better"
    assert re.match(expected, found[5])
    assert pdf.read_bytes().startswith(b"%PDF-1.7")
    assert b"/StructTreeRoot" in pdf.read_bytes()


def test_every_number_of_a_run_is_the_one_in_the_file(tmp_path: Path) -> None:
    results = make()
    text, _ = report(tmp_path, results)
    [table] = [
        block
        for section in describe_experiment(read_sources(results)[0], ExperimentOptions())
        for block in section.blocks
        if isinstance(block, Table) and block.name.endswith("runs")
    ]
    expected = {
        (row["level"], "dense" if row["level"] == 0 else row["branch"], row["replicate"]): row
        for row in results["trainings"]
    }
    seen = 0
    for row in table.rows:
        for replicate, cell in enumerate(row[2:]):
            value = expected[int(row[0]), row[1], replicate]["history"]["early_stop"]["test_accuracy"]
            assert cell == f"{100 * value:.2f}"
            assert f">{cell}<" in text
            seen += 1
    assert seen == len(expected)
    stored = (tmp_path / "report-files" / f"{table.name}.csv").read_text()
    assert stored.splitlines()[0] == ",".join(table.headings)


def test_the_same_results_give_the_same_bytes_in_another_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for zone in ("UTC", "Pacific/Auckland"):
        monkeypatch.setitem(os.environ, "TZ", zone)
        time.tzset()
        report(tmp_path / zone.replace("/", "-"), make())
        files = sorted(path for path in (tmp_path / zone.replace("/", "-")).rglob("*") if path.is_file())
        found.append([(path.name, path.read_bytes()) for path in files])
    monkeypatch.undo()
    time.tzset()
    tables = {f"{name}.{suffix}" for name in ("levels", "runs", "settings") for suffix in ("csv", "tex")}
    names = {f"results-{name}" for name in tables | {"accuracy.png", "accuracy.svg"}}
    assert {name for name, _ in found[0]} == names | {"report.html", "report.pdf", "methods.tex", "methods.bib"}
    assert found[0] == found[1]


def test_hostile_words_are_shown_and_nothing_else(tmp_path: Path) -> None:
    results = make(unidentified=[HOSTILE], plan={"subject": {"workload": HOSTILE, HOSTILE: HOSTILE}})
    results["environments"] = [{"python": HOSTILE}]
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path, title=HOSTILE))
    pdf = generator.add_results(results, name=HOSTILE).generate_report()
    page = Page(pdf.with_suffix(".html").read_text(encoding="utf-8"))
    assert HOSTILE in page.words
    assert [attrs for tag, attrs in page.elements if tag == "img" and "alt" not in attrs] == []
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    outside = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in outside} == {tmp_path.name, "report-files"}


def test_a_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text, _ = report(tmp_path, make())
    links = [value for _, attrs in Page(text).elements for name, value in attrs.items() if name in ("src", "href")]
    assert links
    assert all(link is not None and link.startswith(("data:,", "#")) for link in links)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert len(text) < 3_000_000


@pytest.mark.parametrize("taken", ["report.pdf", "report.html", "report-files/mine.txt", "report.pdf/mine.txt"])
def test_files_of_others_are_not_replaced_and_an_earlier_report_is(tmp_path: Path, taken: str) -> None:
    file = tmp_path / taken
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match="must be an earlier report or not exist, but is of others; take another name"):
        report(tmp_path, make())
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    _, pdf = report(tmp_path, make(), name="another")
    before = pdf.read_bytes()
    _, pdf = report(tmp_path, make(), name="another", title="Another title")
    assert pdf.read_bytes() != before


def test_several_runs_share_a_report_by_name(tmp_path: Path) -> None:
    text, _ = report(tmp_path, make(), make())
    assert "run 0: What was found" in text
    assert "run 1: Threats to validity" in text
    generator = StatisticalReportGenerator().add_results(make(), "one")
    with pytest.raises(ValueError, match="each results must have a name of its own, but 'one' is there"):
        generator.add_results(make(), "one")


def test_threats_are_told_from_the_data(tmp_path: Path) -> None:
    results = make(
        looks=[3, 6], environments=[{"torch": "1"}, {"torch": "2"}], unidentified=["the trainer is not known"]
    )
    results["trainings"] = [row for row in results["trainings"] if row["replicate"] < 3]
    text, _ = report(tmp_path, results)
    for words in (
        "Only 3 replicates",
        "At 80.0 % of the weights these controls were not trained",
        "The trainer is not known.",
        "Trained in 2 environments",
        "Results were looked at 2 times while replicates were added, and 1 were planned",
        "The run was not re-checked",
    ):
        assert words in text, words


def test_a_simulation_claims_nothing(tmp_path: Path) -> None:
    text, _ = report(tmp_path, make(simulated=True))
    assert "No ticket was trained here, so none may be claimed" in text
    assert "<table" not in text


def make_steps(*instabilities: tuple[float, float, float]) -> dict[str, Any]:
    intervals = [dict(zip(("low", "mean", "high"), one, strict=True)) | {"num_replicates": 4} for one in instabilities]
    rows = [
        {
            "step": 10 * number,
            "network": "dense",
            "num_pairs": 4,
            "num_stable": number,
            "instability": interval,
            "barrier": None,
            "accuracy": {"mean": 0.9, "low": 0.8, "high": 0.95, "num_replicates": 4},
        }
        for number, interval in enumerate(intervals)
    ]
    findings = ["dense: stable from step 20 on (3 steps looked at)"]
    return {"network": "a", "settings": {"threshold": 0.02}, "rows": rows, "searches": {}, "findings": findings}


def test_connectivity_is_stable_only_where_the_whole_interval_is(tmp_path: Path) -> None:
    text, pdf = report(tmp_path, make_steps((0.03, 0.05, 0.07), (0.01, 0.019, 0.03), (0.0, 0.01, 0.019)))
    words = Page(text).words
    found = words[words.index("What was found", words.index("Methods")) :]
    verdicts = [word for word in found if word in {"unstable", "undecided", "stable"}]
    assert verdicts[:3] == ["unstable", "undecided", "stable"]
    assert any(
        "dense, from step 20 on: instability 1.00 [0.00, 1.90] points of error, 2 of 4 pairs" in w for w in found
    )
    assert "Only 4 pairs" in text
    assert "stable from step 20 on (3 steps looked at)" in text
    assert pdf.exists()


WRONG: dict[str, tuple[str, str]] = {
    "cut short": ('{"trainings": [', "must be a whole JSON file"),
    "not JSON": ("\x00\x01", "must be a whole JSON file"),
    "a list": ("[1]", "must hold an object of results, but holds a list"),
    "NaN": ('{"trainings": [], "x": NaN}', "NaN is no number that results may have"),
    "a giant number": ('{"trainings": [], "x": 1e999}', "1e999 is larger than any number"),
    "deep": ("[" * 100_000, "must be a whole JSON file"),
    "foreign": ('{"a": 1, "b": 2}', "table, evaluation, but has a, b; give a run folder"),
    "a future version": ('{"schema": "lottery-tickets experiment 3", "trainings": []}', "update lottery-tickets"),
    "half a connectivity": ('{"rows": [{}], "settings": {}, "searches": {}}', "must hold whole results"),
    "rows of nothing": ('{"rows": [], "settings": {"threshold": 0.02}, "searches": {}}', "must hold whole results"),
    "a training of nothing": ('{"trainings": [{"branch": "ticket"}]}', "must hold whole results"),
    "no trainings": ('{"trainings": []}', "each training must have one of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_result_is_refused_and_nothing_written(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    file, folder = tmp_path / "results.json", tmp_path / "out"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        report(folder, file)
    assert not folder.exists()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="experiment_type must be one of"):
        ReportConfig(experiment_type="other")
    with pytest.raises(ValueError, match="none were added; call add_results first"):
        StatisticalReportGenerator(ReportConfig(output_dir=tmp_path / "out")).generate_report()
    with pytest.raises(FileNotFoundError, match="must be a run folder or a JSON file of results"):
        StatisticalReportGenerator().add_results(tmp_path / "nothing")
    for name in ("../up", "a/b", ""):
        with pytest.raises(ValueError, match="the name of a report must be that of a file"):
            report(tmp_path / "out", make(), name=name)
    assert not (tmp_path / "out").exists()


def test_thousands_of_settings_do_not_stop_it(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results = make(plan={"subject": {f"layer {number}": number for number in range(2_000)}})
    file.write_text(json.dumps(results))
    text, pdf = report(tmp_path / "out", file)
    assert "layer 1999" in text
    assert pdf.stat().st_size > 50_000


def test_results_with_names_alike_have_files_of_their_own(tmp_path: Path) -> None:
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path))
    for name, results in (("a b", make()), ("a/b", make_steps((0.03, 0.05, 0.07))), ("a-b", make())):
        generator.add_results(results, name)
    generator.generate_report()
    names = {path.name for path in (tmp_path / "report-files").iterdir()}
    assert {"a-b-accuracy.svg", "a-b-accuracy-2.png", "a-b-instability.svg", "a-b-runs.csv", "a-b-runs-2.tex"} <= names

"""Every value of the results is in the data frame, under its name."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statistical_report_generator import StatisticalReportGenerator
from statistical_report_generator.records import list_records
from tests.statistical_report_generator.rendering.reports import make_connectivity, make_experiment


def test_a_row_is_a_run_and_has_its_figures() -> None:
    results = make_experiment()
    results["trainings"][0]["history"]["curve"] = {"step": [1, 2], "test_accuracy": [0.1, 0.2]}
    generator = StatisticalReportGenerator().add_results(results, "a").add_results(make_connectivity(), "pairs")
    frame = generator.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    runs = frame[frame["kind"] == "experiment"]
    assert len(runs) == len(results["trainings"])
    for (_, row), training in zip(runs.iterrows(), results["trainings"], strict=True):
        assert row["results"] == "a"
        assert [row[key] for key in ("replicate", "level", "branch", "density")] == [
            training[key] for key in ("replicate", "level", "branch", "density")
        ]
        for moment in ("early_stop", "end"):
            assert row[f"history.{moment}.test_accuracy"] == training["history"][moment]["test_accuracy"]
    assert frame[frame["results"] == "pairs"]["instability.mean"].tolist() == [0.05, 0.019, 0.01]
    assert not [name for name in frame.columns if "curve" in name]
    means = runs.groupby(["level", "branch"])["history.end.test_accuracy"].mean()
    assert len(means) == 6


OTHERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "robustness": (
        {"sparsity_curves": {"magnitude": [{"sparsity": 0.5, "loss": 1.0}], "random": []}},
        [{"order": "magnitude", "sparsity": 0.5, "loss": 1.0}],
    ),
    "overlap-matrix": (
        {
            "names": ["a", "b"],
            "overlaps": [[1.0, 0.25], [0.25, 1.0]],
            "expected": [[1.0, 0.125], [0.125, 1.0]],
            "adjusted": [[None, 0.5], [0.5, None]],
        },
        [{"first": "a", "second": "b", "overlap": 0.25, "expected": 0.125, "adjusted": 0.5}],
    ),
    "landscape": (
        {"x": [0.0, 1.0], "y": [2.0], "losses": [[3.0, None]]},
        [{"x": 0.0, "y": 2.0, "loss": 3.0}, {"x": 1.0, "y": 2.0, "loss": None}],
    ),
    "ticket": (
        {"layer_sparsities": {"fc": 0.5}, "thresholds": {"fc": 0.1}},
        [{"layer": "fc", "sparsity": 0.5, "threshold": 0.1}],
    ),
    "importance": (
        {"importance": {"scores": {"fc": {"shape": [2], "mean": 1.0, "quantiles": {"0.5": 1.0}}}}},
        [{"layer": "fc", "sparsity": None, "mean": 1.0, "quantiles.0.5": 1.0}],
    ),
    "overlap": ({"layer_overlaps": {"fc": {"overlap": 0.5}}}, [{"layer": "fc", "overlap": 0.5}]),
    "quality": (
        {"schema": "lottery-tickets quality 1", "performance_retention": 0.9, "retrained": None},
        [{"performance_retention": 0.9, "retrained": None}],
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_have_a_row_for_what_was_measured_once(kind: str) -> None:
    results, expected = OTHERS[kind]
    assert list_records("a", kind, results) == [{"results": "a", "kind": kind, **row} for row in expected]


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"pandas, which is not installed; run: pip install 'lottery-tickets\[pandas\]'"
    ):
        StatisticalReportGenerator().to_dataframe()


def test_results_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"trainings": [1]}')
    with pytest.raises(ValueError, match="must hold whole results of kind 'experiment'"):
        StatisticalReportGenerator().add_results(file).to_dataframe()

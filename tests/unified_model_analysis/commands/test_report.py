"""The command writes pages in the style that is asked for, and says where they are."""

import json
from pathlib import Path

import pytest

from tests.statistical_report_generator.rendering.reports import make_experiment
from unified_model_analysis.cli import main


@pytest.mark.parametrize("style", ["technical", "summary"])
def test_a_summary_leaves_the_methods_out(style: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(make_experiment()))
    assert main(["report", str(file), "--output", str(tmp_path / "out"), "--style", style]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("Methods" in page) is (style == "technical")
    assert "What was found" in page
    assert str(tmp_path / "out" / "report.pdf") in capsys.readouterr().out

"""The command writes pages in the style and with the options that are asked for, and says where they are."""

import json
from pathlib import Path

import pytest
import torch

from lottery_tickets import compute_iterative_magnitude_pruning
from tests.models import make_mlp
from tests.statistical_report_generator.rendering.reports import make_experiment
from unified_model_analysis.cli import main


def report(folder: Path, *options: str) -> str:
    """Returns the page of a report on an experiment, without markup of its own."""
    file = folder / "results.json"
    file.write_text(json.dumps(make_experiment()))
    assert main(["report", str(file), "--output", str(folder / "out"), *options]) == 0
    [page] = (folder / "out").glob("*.html")
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("style", ["technical", "summary"])
def test_a_summary_leaves_the_methods_out(style: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = report(tmp_path, "--style", style)
    assert ("Methods" in page) is (style == "technical")
    assert "What was found" in page
    assert str(tmp_path / "out" / "report.pdf") in capsys.readouterr().out


OPTIONS = {
    "--title": ("A title of my own", "<h1>A title of my own</h1>"),
    "--margin": ("1.25", "1.25 points"),
    "--looks": ("3", "3 planned looks"),
    "--test": ("sign", "sign tests on the median"),
    "--moment": ("end", "Test accuracy after the last step"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_that_of_the_report(option: str, tmp_path: Path) -> None:
    value, words = OPTIONS[option]
    (tmp_path / "other").mkdir()
    assert words not in report(tmp_path / "other")
    assert words in report(tmp_path, option, value)


def test_the_files_have_the_name_that_is_asked_for(tmp_path: Path) -> None:
    report(tmp_path, "--name", "mine")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mine.html", "mine.pdf", "mine-files"}


@pytest.mark.parametrize("altered", [False, True])
def test_what_fails_to_verify_is_said_and_fails(tmp_path: Path, *, altered: bool) -> None:
    model, data = make_mlp(torch.float32, (5, 8, 3)), [(torch.randn(16, 5), torch.randint(3, (16,)))]
    run, out = tmp_path / "run", tmp_path / "out"
    compute_iterative_magnitude_pruning(
        model, data, 0.5, train=True, num_epochs=1, prune_rates=0.5, control_levels="none", run_folder=run
    )
    if altered:
        results = json.loads((run / "results.json").read_text())
        results["trainings"][1]["history"]["end"]["train_accuracy"] = 1.0
        (run / "results.json").write_text(json.dumps(results))
    assert main(["report", str(run), "--output", str(out), "--verify"]) == int(altered)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert ("Re-checking failed, do not trust this run: results.json" in page) is altered
    assert "Re-checked from its files when this report was made" in page
    assert "The run was not re-checked" not in page


def test_there_must_be_something_to_report_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "there must be results to report on; name run folders or files" in capsys.readouterr().err

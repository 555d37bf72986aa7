"""`verify` says what it shows and what it leaves open, and finds what does not follow from the results."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets._core.files import read_json, write_json
from unified_model_analysis.cli import main

Output = pytest.CaptureFixture[str]
SETTINGS = "--levels 1 --replicates 2 --steps 4 --evaluate-every 2 --margin 60 --moment end --looks 2 --workers 1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["imp", "--output", str(run), *SETTINGS.split()]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def verify(run: Path, output: Output, *arguments: str) -> tuple[int, str]:
    output.readouterr()
    code = main(["verify", str(run), *arguments])
    return code, output.readouterr().out


def test_it_says_what_was_not_measured(run: Path, capsys: Output) -> None:
    code, shown = verify(run, capsys)
    assert code == 0
    assert "not measured again: accuracies and losses are those that were recorded" in shown
    assert "not counted again: how many weights moved from starts that are not stored" in shown
    assert len(shown.splitlines()) == 5


def test_it_measures_again_and_says_what_is_still_open(run: Path, capsys: Output) -> None:
    code, shown = verify(run, capsys, "--re-evaluate")
    assert code == 0
    assert "measured again: checkpoints have the figures that are recorded" in shown
    assert "not measured again" not in shown
    assert "which only training again shows (--train-again)" in shown
    code, shown = verify(run, capsys, "--re-evaluate", "--show-all")
    assert shown.count("its figures at early_stop are those of its weights") == 10


def test_it_trains_again_and_says_how_much(run: Path, capsys: Output) -> None:
    code, shown = verify(run, capsys, "--train-again", "3")
    assert code == 0
    assert "trained again: 3 of 10 trainings, drawn at random, end in the same bits" in shown
    assert "still open: whether the others took place as recorded" in shown


def change_summary(run: Path, **changes: Any) -> None:  # noqa: ANN401 - JSON values
    write_json(run / "summary.json", {**read_json(run / "summary.json"), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"findings": ["The ticket wins."]},
        {"moment": "early_stop"},
        {"drawn_with": None},
        {"more": 1},
        {"branches": []},
        {"claims": {}},
        {"claims": {"margin": "large", "num_looks": 1}},
    ],
    ids=lambda changes: json.dumps(changes)[:20],
)
def test_a_summary_that_does_not_follow_from_the_results_is_found(
    run: Path, capsys: Output, changes: dict[str, Any]
) -> None:
    change_summary(run, **changes)
    code, shown = verify(run, capsys)
    assert code == 1
    assert "FAILED  summary.json: it follows from the results" in shown


def test_a_figure_in_a_summary_is_found(run: Path, capsys: Output) -> None:
    branches = read_json(run / "summary.json")["branches"]
    branches[1]["value"]["mean"] += 1e-3
    change_summary(run, branches=branches)
    assert "it.branches[1].value.mean is" in verify(run, capsys)[1]


def test_another_picture_is_found(run: Path, capsys: Output) -> None:
    path = run / "accuracy.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, shown = verify(run, capsys)
    assert code == 1
    assert "FAILED  accuracy.png" in shown
    path.unlink()
    assert verify(run, capsys)[0] == 1


def test_a_picture_of_another_version_is_not_compared_and_that_is_said(run: Path, capsys: Output) -> None:
    change_summary(run, drawn_with="1.0")
    (run / "accuracy.png").write_bytes(b"")
    code, shown = verify(run, capsys)
    assert code == 0
    assert "accuracy.png was drawn with 1.0 and is not compared" in shown


def test_a_run_from_python_needs_its_maker(tmp_path: Path, capsys: Output) -> None:
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    settings: dict[str, Any] = {"num_epochs": 1, "train": True, "run_folder": tmp_path / "run"}
    compute_iterative_magnitude_pruning(nn.Linear(4, 2), data, 0.3, **settings)
    assert main(["verify", str(tmp_path / "run"), "--re-evaluate"]) == 2
    said = capsys.readouterr().err
    assert "call verify_run(run, create_caller_subject(run, model, dataloader, ...))" in said
    assert main(["verify", str(tmp_path / "run")]) == 0

"""`lottery-tickets analyze`: a model from anywhere, analysed in one folder."""

from pathlib import Path

import pytest

from lottery_tickets import load_results
from tests.models import save_tiny_llama
from tests.unified_model_analysis.commands.every_command import save_inputs
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main

FAST = ("--no-report", "--num-samples", "16", "--grid-points", "3", "--batches", "1", "--sparsities", "0.5")
SOURCE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), [(torch.randn(6, 5), torch.arange(6) % 3)]

def make_regression():
    torch.manual_seed(0)
    return nn.Linear(5, 1), [(torch.randn(6, 5), torch.randn(6, 1))], measure

def measure(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()

def make_nothing():
    return None

class OneWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("no way back")

class Stubborn(nn.Linear):
    def forward(self, inputs):
        return OneWay.apply(super().forward(inputs))

def make_stubborn():
    return Stubborn(5, 3), [(torch.randn(6, 5), torch.arange(6) % 3)]
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / name


def test_a_function_of_ones_own(source: Path, capsys: Output) -> None:
    assert main(["analyze", "--output", "out", "--from", f"{source.name}:make", *FAST]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{source.name}:make: 75 parameters")
    assert "8 of 8 analyses finished" in shown
    assert load_results(source.parent / "out" / "analysis.json")["name"] == f"{source.name}:make"
    assert main(["analyze", "--output", "out", "--from", f"{source.name}:make", *FAST]) == 0
    assert "0 analyses to run, expected to take 0.1 s in all" in capsys.readouterr().out


def test_a_function_that_brings_its_loss(source: Path, capsys: Output) -> None:
    assert main(["analyze", "--output", "out", "--from", f"{source.name}:make_regression", *FAST]) == 0
    shown = capsys.readouterr().out
    assert "8 of 8 analyses finished" in shown
    assert "of the performance (loss)" in shown


def test_a_workload_with_a_checkpoint(tmp_path: Path, capsys: Output) -> None:
    save_inputs(tmp_path / "in")
    words = [
        "analyze",
        "--output",
        str(tmp_path / "out"),
        "--checkpoint",
        str(tmp_path / "in" / "first.safetensors"),
        *FAST,
    ]
    assert main([*words, "--analyses", "ticket", "quality"]) == 0
    assert "digits/lenet-300-100: 50,610 parameters" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {
        "analysis.json",
        "quality.json",
        "run.json",
        "ticket.json",
    }


def test_a_folder_of_a_language_model(tmp_path: Path, capsys: Output) -> None:
    folder, text = save_tiny_llama(tmp_path / "model"), tmp_path / "text.txt"
    text.write_text("the union is strong " * 400)
    words = ["--language-model", str(folder), "--text", str(text), "--num-tokens", "4", "--batch-size", "2"]
    assert main(["analyze", "--output", str(tmp_path / "out"), *words, *FAST]) == 0
    shown = capsys.readouterr().out
    assert "8 of 8 analyses finished" in shown
    assert "of the performance (perplexity)" in shown


def test_it_lists_what_there_is_and_touches_nothing(tmp_path: Path, capsys: Output) -> None:
    assert main(["analyze", "--output", str(tmp_path / "out"), "--list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == [
        *(
            "robustness",
            "ticket",
            "importance",
            "strategies",
            "quality",
            "costs",
            "overlap",
            "landscape",
            "early-bird",
            "pruning",
        )
    ]
    assert shown.count("(trains)") == 2
    assert not (tmp_path / "out").exists()


def test_a_failed_analysis_is_said_and_is_no_failed_check(source: Path, capsys: Output) -> None:
    assert main(["analyze", "--output", "out", "--from", f"{source.name}:make_stubborn", *FAST]) == 3
    shown = capsys.readouterr().out
    assert "4 of 8 analyses finished; failed: importance, strategies, costs, overlap" in shown
    assert "NotImplementedError: no way back" in shown


def test_what_is_no_model_is_said(source: Path, capsys: Output) -> None:
    name = source.name
    for given, expected in (
        ("no_module_of_this_name:make", "No module named"),
        (f"{name}:unmade", "has no attribute 'unmade'"),
        (f"{name}", "--from must be module:function"),
        (f"{name}:make_nothing", "must return a model and its batches, or these and a loss_fn, or a dict of model, "),
        (f"{name}:make_nothing", "batches, loss_fn, test_batches, trainer_fn; got a NoneType"),
    ):
        assert expected in refuse(["analyze", "--output", "out", "--from", given, *FAST], capsys)
    for option in ("--sparsity", "--sparsities"):
        message = refuse(["analyze", "--output", "out", "--from", f"{name}:make", *FAST, option, "1.5"], capsys)
        assert "each of sparsity_levels, must be from 0 to 1, got 1.5" in message
    assert "there must be a model to analyse" in refuse(["analyze", "--output", "out", *FAST], capsys)
    assert not Path("out").exists()

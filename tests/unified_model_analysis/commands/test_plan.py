from pathlib import Path

import pytest

from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main
from unified_model_analysis.commands.plan import parse_memory

ANALYSIS = ("--analyses", "fisher")
NETWORK = """
import torch
def make():
    return torch.nn.Linear(64, 4), [(torch.zeros(8, 64), torch.zeros(8, dtype=torch.int64))]
"""


def test_one_table_says_what_fits_and_the_settings(capsys: Output) -> None:
    assert main(["plan", "lenet-300-100", "--gpu", "16GB", *ANALYSIS]) == 0
    first, headings, row, *rest = capsys.readouterr().out.splitlines()
    assert "50,610 parameters, 50,200 prunable, batches of 60, 16.0 GB on a GPU" in first
    assert headings.split()[:1] == ["weights"]
    assert headings.endswith("all  beside it on the CPU  fits  largest batch")
    assert row.startswith("Fisher scores")
    assert "yes" in row
    assert rest[0].startswith("settings: batches of 64 to measure")


def test_what_does_not_fit_is_said_with_what_would(capsys: Output) -> None:
    assert main(["plan", "resnet-20", "--gpu", "20MB", "--batch-size", "500", *ANALYSIS]) == 0
    said = capsys.readouterr().out
    assert " NO " in said
    assert "Fisher scores does not fit at a batch, sample by sample within it: batches of " in said
    assert main(["plan", "resnet-20", "--gpu", "1MB", *ANALYSIS]) == 0
    assert "no batch does; sums on the CPU: --offload" in capsys.readouterr().out


def test_a_network_of_one_s_own_with_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planned_networks.py").write_text(NETWORK)
    assert main(["plan", "--from", "planned_networks:make", *ANALYSIS]) == 0
    said = capsys.readouterr().out
    assert "Linear: 260 parameters, 256 prunable, batches of 8, " in said
    assert "GB on this machine" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "a plan needs one model"),
        (["resnet-20", "--from", "module:function"], "a plan needs one model"),
        (["gpt-5"], "'gpt-5' must be one of lenet-300-100"),
        (["resnet-20", "--gpu", "much"], "--gpu must be an amount of memory such as 80GB, got 'much'"),
        (["resnet-20", "--dtype", "int8"], "--dtype must be one of torch's floats"),
    ],
)
def test_wrong_words_are_said(words: list[str], reason: str, capsys: Output) -> None:
    assert main(["plan", *words]) == 2
    assert reason in capsys.readouterr().err


def test_memory_in_words() -> None:
    assert [parse_memory(words) for words in ("80GB", "80 gb", "80", "512MB", "1TB")] == [80, 80, 80, 0.512, 1000]
    assert parse_memory("24GiB") == pytest.approx(24 * 2**30 / 1e9)

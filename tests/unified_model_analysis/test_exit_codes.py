"""What a command exits with: one table says it, which --help and the docs show; 1 is a failed check and no more."""

import re
from pathlib import Path

import pytest

from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main
from unified_model_analysis.exit_codes import ExitCode

SOURCE = """
import torch
from torch import nn

class Broken(nn.Linear):
    def forward(self, inputs):
        raise RuntimeError("CUDA out of memory")

def make_broken():
    return Broken(5, 3), [(torch.randn(6, 5), torch.arange(6) % 3)]

def make_nothing():
    return {}["no such model"]
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"codes_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("command", [[], ["imp"], ["mask", "show"]])
def test_each_help_ends_with_them(command: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.endswith("; ".join(f"{code.value} {code.meaning}" for code in ExitCode) + ".")


def test_the_page_of_the_shell_has_the_same_table() -> None:
    page = Path("docs/shell.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, flags=re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == [(code.value, code.meaning) for code in ExitCode]


@pytest.mark.parametrize(
    ("function", "words", "said"),
    [
        ("make_broken", ["evaluate", "--output", "e.json"], "RuntimeError: CUDA out of memory"),
        ("make_nothing", ["score", "--output", "s.json"], "KeyError: 'no such model'"),
    ],
)
def test_what_nobody_foresaw_is_shown_whole_and_is_no_failed_check(
    function: str, words: list[str], said: str, source: str, capsys: Output
) -> None:
    assert main([*words, "--from", f"{source}:{function}"]) == ExitCode.NOT_COMPUTED
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert said in shown
    assert shown.splitlines()[-1].startswith("lottery-tickets: an error that nobody foresaw")

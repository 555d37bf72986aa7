"""The example in the help of each command runs as it stands, in the order in which a newcomer meets them."""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
import safetensors.torch

from tests.models import make_lenet
from tests.unified_model_analysis.test_cli import Output
from tests.unified_model_analysis.test_words import list_commands
from unified_model_analysis.cli import main

COMMANDS: Final = (
    *("mask create", "mask show", "score", "compare", "evaluate", "landscape", "connectivity", "early-bird", "analyze"),
    *("mask apply", "mask stats", "diff", "imp", "verify", "report", "ticket show", "ticket make", "plan", "doctor"),
    "export",
)
SLOW: Final = "demo"  # runs for minutes


def read_help(command: str, output: Output) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), "--help"])
    return re.sub(r"\s+", " ", output.readouterr().out)


def find_example(command: str, output: Output) -> list[str]:
    [example] = re.findall(r"Example: `lottery-tickets ([^`]*)`", read_help(command, output))
    words = shlex.split(example)
    assert words[: len(command.split())] == command.split()
    return words


def test_the_examples_in_help_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    for seed, name in enumerate(("trained", "other")):
        safetensors.torch.save_file(make_lenet(seed).state_dict(), f"{name}.safetensors")
    for command in COMMANDS:
        words = find_example(command, capsys)
        assert main(words) == 0, (command, capsys.readouterr().err)
        capsys.readouterr()


def test_the_demo_has_an_example_too(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert find_example(SLOW, capsys) == ["demo", "--output", "runs/demo"]


def test_no_command_is_without_an_example() -> None:
    assert sorted([*COMMANDS, SLOW]) == sorted(name for name, _ in list_commands())

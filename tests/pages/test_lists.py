"""What pages show to be typed is typed by a test, or stands in a list with the reason; the lists hold nothing else."""

import importlib.util
from contextlib import nullcontext
from typing import Final

import pytest
import tyro

from tests.pages.reading import PAGES, ROOT, Step, read_steps
from tests.pages.stand_ins import BENCHMARKS, GIVEN, NOT_TYPED
from unified_model_analysis.cli import Command

COMMANDS: Final = [step for page in PAGES for step in read_steps(page) if step.is_command]
OURS: Final = [step for step in COMMANDS if step.is_ours]


def test_there_are_many_commands_and_code_between_them() -> None:
    assert len(OURS) > 40
    assert {step.page for step in COMMANDS} > {"README.md", "docs/shell.md", "docs/howto/grow.md"}
    steps = read_steps(ROOT / "docs" / "howto" / "grow.md")
    assert [step.is_command for step in steps] == [False, True, True]
    assert steps[1].words == ["lottery-tickets", "imp", "--output", "runs/lenet", "--replicates", "3"]


@pytest.mark.parametrize("step", OURS, ids=lambda step: step.place)
def test_the_shell_takes_each_command(step: Step) -> None:
    with pytest.raises(SystemExit, match="0") if step.words[-1] == "--help" else nullcontext():
        tyro.cli(Command, args=step.words[1:])  # raises SystemExit where it is none


def test_all_others_are_on_the_list_or_benchmarks() -> None:
    others = [step for step in COMMANDS if not step.is_ours]
    benchmarks = [step.text.removeprefix(".venv/bin/") for step in others if BENCHMARKS in step.text]
    assert len(benchmarks) > 10
    for command in benchmarks:
        module = command.split()[2]
        assert importlib.util.find_spec(module), f"{module}: no such benchmark"
    assert {step.text for step in others if BENCHMARKS not in step.text} <= set(NOT_TYPED)
    assert set(NOT_TYPED) <= {step.text for step in COMMANDS}


def test_what_a_page_is_given_it_uses() -> None:
    for page, names in GIVEN.items():
        words = {word for step in OURS if step.page == page for word in step.words}
        used = {name for name in names if any(word.startswith(name) for word in words)}
        assert used == set(names), (page, set(names) - used)

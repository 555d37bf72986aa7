"""`lottery-tickets diff`: what it shows is what it saves, and what it is not given it says."""

from pathlib import Path

import pytest
import torch

from lottery_tickets import CheckpointWeights, compute_changes, load_results
from lottery_tickets.storage import save_weights
from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints of one model, two of them trained."""
    before = {f"layers.{n}.up.weight": 0.02 * torch.randn(64, 40) for n in range(2)}
    save_weights(before, tmp_path / "before.safetensors")
    for seed in (0, 1):
        after = {name: weight + 1e-5 * torch.randn(64, 40) for name, weight in before.items()}
        save_weights(after, tmp_path / f"seed-{seed}" / "model.safetensors")
    return tmp_path


def test_what_is_shown_is_saved_and_is_that_of_the_library(folder: Path, capsys: Output) -> None:
    places = [folder / "before.safetensors", *(folder / f"seed-{seed}" / "model.safetensors" for seed in (0, 1))]
    assert main(["diff", *map(str, places), "--output", str(folder / "found.json")]) == 0
    found = load_results(folder / "found.json")
    before, *after = map(CheckpointWeights, places)
    names = ["seed-0/model.safetensors", "seed-1/model.safetensors"]
    expected = compute_changes(before, dict(zip(names, after, strict=True)))
    assert {name: found[name] for name in expected} == expected
    shown = capsys.readouterr().out
    for words in (
        "layers.*.up.weight",
        "at chance, with an error rate of 0.01",
        "one in each layer",
        "bfloat16 would hide",
    ):
        assert words in shown
    overall = found["updates"][names[0]]["overall"]
    assert f"{overall['num_changed']:,} of 5,120 weights changed" in shown
    assert main(["diff", *map(str, places), "--output", str(folder / "found.json")]) == 2
    assert "exists and would be replaced" in capsys.readouterr().err


def test_the_largest_changes_of_one_training_by_layer(folder: Path, capsys: Output) -> None:
    words = ["diff", str(folder / "before.safetensors"), str(folder / "seed-0" / "model.safetensors"), "--layers"]
    assert main([*words, "--by", "delta", "--sparsity", "0.9", "--output", str(folder / "found.json")]) == 0
    assert "layers.1.up.weight" in capsys.readouterr().out
    found = load_results(folder / "found.json")
    assert (found["masks"]["model.safetensors"].num_kept, found["overlaps"]) == (512, None)
    assert main([*words, "--by", "delta"]) == 2
    assert "sparsity must be given" in capsys.readouterr().err


def test_what_is_missing_is_said(folder: Path, capsys: Output) -> None:
    before, after = str(folder / "before.safetensors"), str(folder / "seed-0" / "model.safetensors")
    for words in ([before], [before, after, after]):
        assert main(["diff", *words]) == 2
        assert "one checkpoint or more after training, each named once" in capsys.readouterr().err
    save_weights({"other.weight": torch.ones(2, 2)}, folder / "other.safetensors")
    assert main(["diff", before, str(folder / "other.safetensors")]) == 2
    assert "before and after must have the same weights" in capsys.readouterr().err

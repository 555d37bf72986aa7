"""Masks from checkpoints and checkpoints from masks, as an engineer types it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import CheckpointWeights, Mask, compute_sparsity, create_magnitude_mask
from lottery_tickets.storage import load_weights, save_weights
from tests.models import make_language_model
from unified_model_analysis import stored_weights
from unified_model_analysis.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model: Any = make_language_model("tied Llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "base", max_shard_size="4KB")
    return tmp_path / "base"


def call(*words: object) -> int:
    return main(["mask", *map(str, words)])


def test_a_folder_is_pruned_and_its_copy_is_a_checkpoint_again(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    ticket = tmp_path / "ticket.safetensors"
    assert call("create", folder, "--sparsity=0.5", "--name-base", "--output", ticket) == 0
    said = capsys.readouterr()
    assert (
        f"using the checkpoint {CheckpointWeights(folder)}; which weights count is told by the modules of Llama"
        in said.err
    )
    assert "base: base, 20 tensors by their hashes" in said.out
    assert Mask.load(ticket) == create_magnitude_mask(CheckpointWeights(folder), 0.5)
    assert call("apply", folder, ticket, "--output", tmp_path / "pruned") == 0
    assert "of 3,840 weights set to zero" in capsys.readouterr().out
    assert compute_sparsity(CheckpointWeights(tmp_path / "pruned")) == 0.5
    assert call("stats", tmp_path / "pruned", "--include", "*layers.1.*") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 8
    assert "model.layers.1.mlp.down_proj.weight (16, 24) bfloat16" in shown[-1]


def test_what_does_not_fit_is_one_line_and_nothing_is_written(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    mask = tmp_path / "mask.safetensors"
    assert call("create", folder, "--sparsity=0.5", "--name-base", "--output", mask) == 0
    weights = {name: load_weights(path)[name] for name, path in list_tensors(folder)}
    weights["model.norm.weight"][0] += 1
    save_weights(weights, tmp_path / "other.safetensors")
    torch.save(weights, tmp_path / "other.pt")
    wrong = {
        (
            "apply",
            tmp_path / "other.safetensors",
            mask,
            "--output",
            tmp_path / "new",
        ): "model.norm.weight is not the same",
        ("apply", folder, mask, "--output", folder): "must be free for the new checkpoint",
        ("apply", tmp_path / "other.pt", mask, "--output", tmp_path / "new"): "is a torch file",
        ("apply", folder, tmp_path / "other.safetensors", "--output", tmp_path / "new"): "must be a mask",
        ("create", folder, "--sparsity=0.5", "--output", mask): "exists and would be replaced",
        (
            "create",
            tmp_path / "other.pt",
            "--sparsity=0.5",
            "--name-base",
            "--output",
            tmp_path / "a",
        ): "--name-base is for",
        ("create", tmp_path / "none", "--sparsity=0.5", "--output", tmp_path / "a"): "there is none of this name",
        ("stats", tmp_path): "to say what its 2 safetensors files are",
    }
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    for words, told in wrong.items():
        assert call(*words) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("using ")]
        assert len(said) == 1
        assert told in said[0]
    assert sorted(tmp_path.rglob("*")) == before


def list_tensors(folder: Path) -> list[tuple[str, Path]]:
    shards = CheckpointWeights(folder).layout.shards.values()
    return [(name, shard.path) for shard in shards for name in shard.header.entries]


def test_torch_files_are_pruned_as_before(tmp_path: Path) -> None:
    state = {"fc.weight": torch.randn(8, 8)}
    torch.save(state, tmp_path / "a.pt")
    assert call("create", tmp_path / "a.pt", "--sparsity=0.5", "--output", tmp_path / "mask") == 0
    assert Mask.load(tmp_path / "mask") == create_magnitude_mask(state, 0.5)


def test_a_bar_shows_the_bytes_that_were_read_and_grows_with_a_second_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(stored_weights, "SECONDS_UNSEEN", 0.0)
    save_weights({"fc.weight": torch.randn(500, 500)}, tmp_path / "a.safetensors")
    checkpoint = CheckpointWeights(tmp_path / "a.safetensors")
    num_bytes = stored_weights.find_num_bytes(checkpoint, None, None)
    assert num_bytes == 1_000_000
    for num_passes, told in ((1, "1.00M/1.00M"), (3, "3.00M/3.00M")):
        with stored_weights.showing_bytes(checkpoint, num_bytes):
            for _ in range(num_passes):
                compute_sparsity(checkpoint)
        assert told in capsys.readouterr().err

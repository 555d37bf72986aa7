"""The command line answers in words: what it did, or in one line without a traceback why it could not."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from lottery_tickets import (
    Mask,
    compute_iterative_magnitude_pruning,
    create_importance_mask,
    create_magnitude_mask,
    load_results,
)
from lottery_tickets.workloads import build_model
from statistical_report_generator.claims.findings import describe_claims
from statistical_report_generator.claims.outline import answer_claims, list_remarks, list_verdicts
from tests.models import save_tiny_llama
from unified_model_analysis.cli import main

Output = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    safetensors.torch.save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    settings = {"num_epochs": 1, "train": True, "run_folder": folder}
    compute_iterative_magnitude_pruning(nn.Linear(4, 2), data, 0.3, **settings)  # type: ignore[arg-type] # of many types
    return folder


def refuse(arguments: Sequence[object], output: Output) -> str:
    """Runs a command that must be refused, and returns its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    written = output.readouterr()
    assert written.err.startswith("lottery-tickets: ")
    assert written.err.count("\n") == 1
    assert "Traceback" not in written.err
    return written.err


# ---------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_mask_create_writes_the_mask_of_a_checkpoint(
    checkpoint: Path, output_path: Path, suffix: str, capsys: Output
) -> None:
    state = safetensors.torch.load_file(checkpoint)
    if suffix == "pt":
        checkpoint = checkpoint.with_suffix(".pt")
        torch.save({"state_dict": state, "epoch": 3}, checkpoint)
    assert main(["mask", "create", str(checkpoint), str(output_path), "--sparsity", "0.75", "--scope", "layer"]) == 0
    mask = Mask.load(output_path)
    assert mask == create_magnitude_mask(state, 0.75, scope="layer")
    assert list(mask) == ["0.weight", "2.weight"]
    assert mask.provenance["checkpoint"] == checkpoint.name
    assert "75.0000% removed  0.weight (16, 8)" in capsys.readouterr().out


@pytest.fixture
def output_path(tmp_path: Path) -> Path:
    return tmp_path / "mask.safetensors"


def test_mask_create_takes_names(checkpoint: Path, output_path: Path) -> None:
    assert main(["mask", "create", str(checkpoint), str(output_path), "--sparsity", "0.5", "--include", "2.*"]) == 0
    assert "0.weight" not in Mask.load(output_path)


def test_mask_show_shows(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "mask.safetensors"
    Mask.from_tensors({"fc.weight": torch.eye(4)}, {"method": "by hand"}).save(path)
    assert main(["mask", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "4 of 16 weights kept, sparsity 0.7500" in shown
    assert "method: by hand" in shown


def test_masks_that_cannot_be_made_are_refused(checkpoint: Path, output_path: Path, capsys: Output) -> None:
    create = ["mask", "create", checkpoint, output_path, "--sparsity"]
    assert "sparsity must be from 0 (keep all) to 1" in refuse([*create, "1.5"], capsys)
    assert "scope must be one of" in refuse([*create, "0.5", "--scope", "rows"], capsys)
    assert "no.such" in refuse([*create, "0.5", "--include", "no.such"], capsys)
    assert not output_path.exists()


@pytest.mark.parametrize(
    "name", ["empty.pt", "text.pt", "zip.pt", "empty.safetensors", "list.pt", "missing.pt", "code.pt"]
)
def test_checkpoints_that_cannot_be_read_are_refused(
    tmp_path: Path, output_path: Path, capsys: Output, name: str
) -> None:
    path = tmp_path / name
    if name == "list.pt":
        torch.save([1, 2], path)
    elif name == "code.pt":
        torch.save(nn.Linear(1, 1), path)  # a pickled module, which weights_only refuses
    elif name != "missing.pt":
        path.write_bytes({"empty": b"", "text": b"no pickle", "zip": b"PK\x03\x04"}[path.stem])
    assert f"{name} must" in refuse(["mask", "create", path, output_path, "--sparsity", "0.5"], capsys)
    assert not output_path.exists()


def test_files_that_are_no_masks_are_refused(checkpoint: Path, tmp_path: Path, capsys: Output) -> None:
    assert "some other safetensors file" in refuse(["mask", "show", checkpoint], capsys)
    assert "missing must be a whole safetensors file" in refuse(["mask", "show", tmp_path / "missing"], capsys)


# --------------------------------------------------------------------------------------------------------------- verify


def test_verify_says_what_holds_and_what_does_not(finished: Path, capsys: Output) -> None:
    assert main(["verify", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert "checks hold; no contradiction was found" in shown
    assert main(["verify", str(finished), "--show-all"]) == 0
    assert capsys.readouterr().out.count("ok  ") == int(shown.split("of ")[1].split()[0])
    path = finished / "replicate-0" / "level-01-ticket" / "weights.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1])
        assert main(["verify", str(finished)]) == 1
    finally:
        path.write_bytes(content)
    shown = capsys.readouterr().out
    assert "FAILED  replicate-0/level-01-ticket: its files are whole and unaltered: ['weights.safetensors']" in shown
    assert "do not trust this run" in shown


def test_verify_refuses_what_is_no_run(tmp_path: Path, capsys: Output) -> None:
    assert "must be the folder of an experiment, but has no run.json" in refuse(["verify", tmp_path], capsys)


# ------------------------------------------------------------------------------------------------------------------ imp

WRONG = {
    "--margin 0": "margin must be positive",
    "--looks 0": "num_looks must be at least 1",
    "--steps 0": "num_steps",
    "--levels -1": "num_levels must be from 0 to 1000",
    "--levels 2 --controls 3": "control_levels must be in",
    "--replicates 0": "num_replicates must be from 1 to 10000",
    "--rewind-step 9999": "rewind_step must be in",
    "--learning-rate -1": "lr",
    "--data mnist-format": "needs a folder",
    "--folder /nowhere": "folder must be None",
    "--data mnist-format --folder /nowhere": "must hold the files",
    "--device nonsense": "device",
    "--device meta": "device",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_experiments_that_cannot_be_run_are_refused(tmp_path: Path, capsys: Output, arguments: str) -> None:
    run = tmp_path / "run"
    assert WRONG[arguments] in refuse(["imp", run, *arguments.split(), "--workers", "1"], capsys)
    assert not run.exists()


def test_imp_says_what_its_summary_claims(tmp_path: Path, capsys: Output) -> None:
    settings = "--levels 1 --replicates 2 --steps 4 --evaluate-every 2 --margin 99 --looks 2 --workers 1"
    assert main(["imp", str(tmp_path / "run"), *settings.split()]) == 0
    shown = capsys.readouterr().out
    summary = load_results(tmp_path / "run" / "summary.json")
    assert summary["findings"] == describe_claims(summary["claims"])
    assert shown.startswith(answer_claims(summary["claims"]))  # the answer first
    assert "\n".join(list_remarks(summary["claims"])) in shown
    [ticket] = [line for line in shown.splitlines() if line.startswith("80.2 %   ticket")]
    assert ticket.rstrip().endswith(" ".join(list_verdicts(summary["claims"])[1, "ticket"]).replace(" p", "  p", 1))
    assert (summary["claims"]["margin"], summary["claims"]["alpha_per_look"]) == (0.99, 0.025)
    assert len(summary["claims"]["levels"]) == 1
    assert len(summary["claims"]["levels"][0]["controls"]) == 3


def test_a_file_in_place_of_the_folder_is_refused(checkpoint: Path, capsys: Output) -> None:
    assert str(checkpoint) in refuse(["imp", checkpoint, "--levels", "1", "--controls", "1"], capsys)


# --------------------------------------------------------------------------------------------------- tyro's own answers


@pytest.mark.parametrize("command", [[], ["imp"], ["verify"], ["demo"], ["mask"], ["mask", "create"], ["mask", "show"]])
def test_help_teaches(command: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*command, "--help"])
    shown = capsys.readouterr().out
    assert "usage: lottery-tickets" in shown
    assert len(shown) > 300


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], [], ["imp"], ["imp", "x", "--levels", "many"], ["imp", "x", "--no-such", "1"], ["mask"]],
)
def test_wrong_words_exit_with_2(arguments: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments)
    assert "Traceback" not in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Mask, "load", interrupt)
    assert main(["mask", "show", str(tmp_path)]) == 130
    assert capsys.readouterr().err == ("lottery-tickets: interrupted; nothing is kept; the same command begins anew\n")


def test_the_installed_command_returns_its_exit_code(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("lottery-tickets")
    run = subprocess.run([command, "verify", tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("lottery-tickets: ")


# --------------------------------------------------------------------------------------------------------------- scores


def test_score_writes_summary_mask_and_scores(tmp_path: Path, capsys: Output) -> None:
    results, mask, scores = (tmp_path / name for name in ("s.json", "m.safetensors", "s.safetensors"))
    command = ["score", results, "--num-samples", 50, "--sparsity", 0.8, "--mask", mask, "--scores", scores]
    assert main([*map(str, command), "--standard-errors"]) == 0
    shown = capsys.readouterr().out
    assert "0.5 * mean of gradient^2 * w^2" in shown
    assert "computed: whole batches" in shown
    assert "largest standard error" in shown
    loaded = load_results(results)["importance"]
    assert loaded["report"]["num_samples"] == 50
    assert len(loaded["scores"]["fc1.weight"]["heat_map"]) == 16
    assert loaded.keys() == {"report", "scores", "standard_errors"}
    tensors = safetensors.torch.load_file(scores)
    assert create_importance_mask(tensors, 0.8) == Mask.load(mask)
    assert Mask.load(mask).sparsity == pytest.approx(0.8)


@pytest.mark.parametrize(
    "method", ["magnitude", "fisher", "taylor", "taylor-unit", "gradient", "hybrid", "snip", "wanda"]
)
def test_every_method_scores(method: str, tmp_path: Path, capsys: Output) -> None:
    arguments = [] if method == "magnitude" else ["--num-samples", "20"]
    assert main(["score", str(tmp_path / "s.json"), "--method", method, "--scope", "layer", *arguments]) == 0
    assert "mask at sparsity 0.5, scope layer: 25100 of 50200 kept" in capsys.readouterr().out


def test_score_takes_trained_weights(tmp_path: Path, capsys: Output) -> None:
    model = build_model("lenet-300-100", input_shape=(1, 8, 8), num_classes=10, generator=torch.Generator())
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    options = ["--method", "magnitude", "--checkpoint", str(tmp_path / "model.safetensors")]
    assert main(["score", str(tmp_path / "s.json"), *options, "--mask", str(tmp_path / "m.safetensors")]) == 0
    assert Mask.load(tmp_path / "m.safetensors") == create_magnitude_mask(model, 0.5)
    assert capsys.readouterr().out


def test_score_scores_a_language_model_of_ones_own(tmp_path: Path, capsys: Output) -> None:
    folder = save_tiny_llama(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("the cat saw the dog and the dog saw the cat " * 40, encoding="utf-8")
    options = [
        "--language-model",
        str(folder),
        "--text",
        str(text),
        "--num-tokens",
        "8",
        "--num-samples",
        "6",
        "--scope",
        "layer",
    ]
    assert main(["score", str(tmp_path / "s.json"), "--method", "fisher", *options]) == 0
    assert "num_samples: 6" in capsys.readouterr().out


def test_score_refuses_what_does_not_fit(tmp_path: Path, capsys: Output) -> None:
    results = tmp_path / "s.json"
    assert "--num-samples must be a number for method 'wanda'" in refuse(
        ["score", results, "--method", "wanda", "--num-samples", "auto"], capsys
    )
    assert "method 'grasp' does not know --chunk-size" in refuse(
        ["score", results, "--method", "grasp", "--chunk-size", 0], capsys
    )
    for size in (0, -8):
        message = f"--batch-size must be an integer of at least 1, got {size}"
        assert message in refuse(["score", results, "--batch-size", size], capsys)
    assert "--text is for a language model" in refuse(["score", results, "--text", tmp_path / "t.txt"], capsys)
    assert "--checkpoint is for a workload" in refuse(
        ["score", results, "--language-model", tmp_path, "--checkpoint", tmp_path / "c"], capsys
    )
    assert not results.exists()

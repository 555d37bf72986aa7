"""`lottery-tickets early-bird` says whether the ticket has converged, why and what to do next; stopped, it goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import (
    Mask,
    check_held,
    compute_early_bird_tickets,
    create_magnitude_mask,
    load_results,
    load_ticket,
    use_ticket,
)
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets.early_bird.folder import EarlyBirdFolder, SavedCheck
from lottery_tickets.storage import RunFolder
from tests.lottery_tickets.early_bird.digits import make_digits_loader
from tests.models import make_lenet, save_tiny_llama
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main
from unified_model_analysis.early_bird_summary import advise

FAST = ("--check-interval", 1, "--epochs", 12, "--momentum", 0.9)
FILES = {"results.json", "ticket.safetensors", "early-bird.png", "run.json", ".lock", "run"}


def find(folder: Path, *options: object) -> dict[str, Any]:
    assert main(["early-bird", "--output", str(folder), *map(str, options)]) == 0
    return load_results(folder / "results.json")


def strip(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in check.items() if name != "seconds"} for check in results["checkpoints"]]


def test_a_ticket_that_converges_is_saved_with_its_evidence(tmp_path: Path, capsys: Output) -> None:
    results = find(tmp_path, *FAST)
    shown = capsys.readouterr().out
    assert results["verdict"] == "converged"
    assert results["network"] == "digits/lenet-300-100"
    assert "target sparsity 0.7 (usual for classification); SGD, learning rate 0.1, momentum 0.9" in shown
    assert f"digits/lenet-300-100: converged: {results['reason']}" in shown
    rows = [line.split() for line in shown.splitlines() if line.endswith(("still changing", "converged"))]
    assert [int(row[0]) for row in rows] == [check["epoch"] for check in results["checkpoints"]]
    assert f"stood after {results['convergence_epoch'] / 12:.0%} of the training that was allowed" in shown
    assert f"use_ticket(network, '{tmp_path / 'ticket.safetensors'}')" in shown
    assert results["findings"][0] in shown

    mask = Mask.load(tmp_path / "ticket.safetensors")
    assert mask == results["final_mask"]
    assert mask.sparsity == pytest.approx(0.7, abs=1e-4)
    assert {path.name for path in tmp_path.iterdir() if not path.name.endswith(".mask.safetensors")} == FILES
    assert (tmp_path / "results.json").stat().st_size < 20_000
    network = make_lenet()
    ticket = use_ticket(network, tmp_path / "ticket.safetensors")
    assert check_held(network) == mask
    assert (ticket.step, ticket.claims, ticket.provenance["verdict"]) == (0, None, "converged")
    assert create_magnitude_mask(ticket.state, 0.7) != mask, "theta_0 is whole, and drew another mask"


def test_what_has_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    find(tmp_path, *FAST)
    first, before = capsys.readouterr().out, (tmp_path / "results.json").read_bytes()
    monkeypatch.delattr(LightTrainer, "_train")
    find(tmp_path, *FAST)
    assert (tmp_path / "results.json").read_bytes() == before
    assert capsys.readouterr().out == first


def test_an_interrupted_run_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    whole = find(tmp_path / "whole", *FAST)
    save = EarlyBirdFolder.save

    def save_and_stop(folder: EarlyBirdFolder, check: SavedCheck) -> None:
        save(folder, check)
        if len(check.checkpoints) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EarlyBirdFolder, "save", save_and_stop)
        assert main(["early-bird", "--output", str(tmp_path / "halves"), *map(str, FAST)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "halves" / "results.json").exists()
    halves = find(tmp_path / "halves", *FAST)
    assert strip(halves) == strip(whole)
    assert halves["final_mask"] == whole["final_mask"]


def test_more_epochs_go_on_and_other_data_is_refused(tmp_path: Path, capsys: Output) -> None:
    short = find(tmp_path, *FAST, "--epochs", 2)
    assert short["verdict"] == "still changing"
    assert "Next: the same command with a larger --epochs" in capsys.readouterr().out
    assert "ticket.safetensors is the mask of the last check" in short["findings"][0]
    message = refuse(["early-bird", "--output", tmp_path, *FAST, "--batch-size", 30, "--seed", 1], capsys)
    assert "--batch-size is None there and 30 here; --seed is 42 there and 1 here" in message
    long = find(tmp_path, *FAST)
    assert long["verdict"] == "converged"
    assert strip(long)[:2] == strip(short)


def test_the_run_inside_and_a_run_from_python_say_how_they_go_on(tmp_path: Path, capsys: Output) -> None:
    find(tmp_path / "results", *FAST, "--epochs", 1)
    capsys.readouterr()
    whose = "it is that of an early-bird run made by the Python function compute_early_bird_tickets; go on with that"
    assert whose in refuse(["early-bird", "--output", tmp_path / "results" / "run", *FAST], capsys)
    compute_early_bird_tickets(make_lenet(), make_digits_loader(), max_epochs=1, run_folder=tmp_path / "python" / "run")
    before = sorted((tmp_path / "python").rglob("*"))
    assert whose in refuse(["early-bird", "--output", tmp_path / "python" / "run", *FAST], capsys)
    assert "it holds other files (run); nothing was written" in refuse(
        ["early-bird", "--output", tmp_path / "python"], capsys
    )
    assert sorted((tmp_path / "python").rglob("*")) == before


def test_weights_that_hardly_move_are_told_what_to_do(tmp_path: Path, capsys: Output) -> None:
    results = find(tmp_path, "--learning-rate", 1e-6, "--check-interval", 1, "--epochs", 3)
    assert results["verdict"] == "trivially stable"
    shown = capsys.readouterr().out
    for advice in ("raise --learning-rate above 1e-06", "train longer", "record_movement", "score --method saliency"):
        assert advice in shown


def test_a_loss_that_rises_is_told_what_to_do(tmp_path: Path, capsys: Output) -> None:
    options = ("--learning-rate", 3, "--check-steps", 1, "--steps", 6, "--threshold", 0, "--window", 1)
    results = find(tmp_path, *options)
    assert results["verdict"] == "diverged"
    assert "lower --learning-rate below 3, in another folder" in capsys.readouterr().out


def test_checks_by_step_the_queue_and_other_options(tmp_path: Path, capsys: Output) -> None:
    options = (
        "--check-steps",
        "log",
        "--steps",
        12,
        "--method",
        "mask_distance",
        "--window",
        2,
        "--threshold",
        0.3,
    )
    more = ("--optimizer", "adamw", "--dtype", "bfloat16", "--sparsity", 0.5, "--max-batch-size", 40)
    results = find(tmp_path, *options, *more, "--exclude", "output.weight")
    assert [check["step"] for check in results["checkpoints"]] == [1, 2, 3, 4, 6, 8, 12][: len(results["checkpoints"])]
    rule = results["settings"]["rule"]
    assert (results["method"], rule["queue_length"], rule["distance_threshold"]) == ("mask_distance", 2, 0.3)
    assert results["settings"]["weights"] == ["fc1.weight", "fc2.weight"]
    assert "AdamW, learning rate 0.001; checks at steps 1, 2, 3" in capsys.readouterr().out
    start = load_ticket(tmp_path / "ticket.safetensors").state
    assert {tensor.dtype for tensor in start.values()} == {torch.bfloat16}


def test_channels_are_said_to_be_taken_out(tmp_path: Path, capsys: Output) -> None:
    found = {"converged": True, "settings": {"channels": True}, "checkpoints": [{"learning_rate": 0.1}]}
    means, advice = advise(found, tmp_path, 0.25)  # type: ignore[arg-type] # the part of results that is read
    assert "after 25%" in means
    assert "take the removed channels out before you train" in advice
    options = ("--model", "resnet-20", "--channels", "--check-steps", 1, "--steps", 1, "--batch-size", 8)
    results = find(tmp_path, *options)
    assert {len(shape) for shape in results["final_mask"].shapes.values()} == {
        1,
        2,
        4,
    }  # whole channels, in all that has them
    assert "still changing" in capsys.readouterr().out


def test_a_language_model_of_ones_own(tmp_path: Path, capsys: Output) -> None:
    folder = save_tiny_llama(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("the union is strong and the union is the union " * 40, encoding="utf-8")
    options = ("--language-model", folder, "--text", text, "--num-tokens", 8, "--batch-size", 2, "--batches", 6)
    results = find(tmp_path / "found", *options, "--epochs", 2, "--check-interval", 1)
    assert "target sparsity 0.5 (usual for a language model); SGD, learning rate 0.01" in capsys.readouterr().out
    assert results["network"] == "model"
    assert [check["step"] for check in results["checkpoints"]] == [6, 12]
    assert results["final_mask"].sparsity == 0.5


WRONG = {
    "--sparsity 1.5": "sparsity must be from 0",
    "--check-steps 0": "check_steps must be",
    "--steps 5": "--steps goes with --check-steps",
    "--batches 5": "--batches is for a language model",
    "--batch-size 0": "--batch-size must be at least 1",
    "--epochs 0": "max_epochs must be",
    "--threshold 2": "convergence_threshold must be from 0 to 1",
    "--method mask_distance --window 1": "queue_length must be at least 2",
    "--learning-rate -1": "learning_rate must be at least 0",
    "--optimizer adamw --momentum 0.9": "momentum must be 0 for AdamW",
    "--include no.such": "no.such",
    "--channels": "batch norm",
    "--text t.txt": "--text is for a language model",
    "--language-model x --checkpoint c.pt": "--checkpoint is for a workload",
    "--language-model /nowhere": "folder must hold config.json",
    "--data mnist-format": "needs a folder",
    "--device nonsense": "device must be one that computes",
    "--device meta": "device must be one that computes",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_refused_and_leave_nothing(tmp_path: Path, capsys: Output, arguments: str) -> None:
    folder = tmp_path / "results"
    assert WRONG[arguments] in refuse(["early-bird", "--output", folder, *arguments.split()], capsys)
    assert not folder.exists()


def test_options_are_kept_as_they_were_given(tmp_path: Path) -> None:
    find(tmp_path, "--check-steps", 1, "--steps", 1, "--include", "fc1.*")
    options = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["settings"]
    assert (options["--include"], options["--check-steps"], options["--learning-rate"]) == (["fc1.*"], 1, None)
    assert not {"--results", "--epochs", "--steps", "--device"} & options.keys()


def test_help_says_that_it_can_be_stopped(capsys: Output) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["early-bird", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Stopped at any moment, the same command goes on from its last check" in shown


def test_score_refuses_a_device_in_the_same_words(tmp_path: Path, capsys: Output) -> None:
    message = refuse(
        ["score", "--output", tmp_path / "s.json", "--method", "magnitude", "--device", "nonsense"], capsys
    )
    assert "device must be one that computes on this machine, but got 'nonsense'" in message


def test_a_folder_begun_with_options_of_other_names_is_refused_by_these(tmp_path: Path, capsys: Output) -> None:
    before = {"--num-batches": 20, "--text": [], "--seed": 42, "--gone": None}
    with RunFolder(tmp_path / "old", "results of early-bird", "lottery-tickets early-bird").opened(before):
        (tmp_path / "old" / "run").mkdir()
    assert refuse(["early-bird", "--output", tmp_path / "old"], capsys) == (
        f"lottery-tickets: {tmp_path / 'old'} was begun by an earlier version with --num-batches 20, which "
        "`early-bird` now has under another name or not at all; name a new folder, or go on with that version"
    )

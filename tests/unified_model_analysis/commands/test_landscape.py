"""`lottery-tickets landscape` draws what the library measures, goes on where it was stopped, and refuses in words."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import compute_loss_landscape, create_magnitude_mask, load_results
from lottery_tickets._core.measuring.performance import Measurement
from lottery_tickets.landscape import surface
from tests.models import load_digits, make_lenet, save_tiny_llama
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main

FAST = ("--grid-points", 3, "--batches", 1, "--batch-size", 40)


def find(folder: Path, *options: object) -> dict[str, Any]:
    assert main(["landscape", "--output", str(folder), *map(str, options)]) == 0
    assert (folder / "landscape.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {"landscape.json", "landscape.png", "run.json", ".lock"}
    found = load_results(folder / "landscape.json")
    assert found.pop("provenance")["wall_seconds"] >= 0
    return found


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "trained.pt"
    state = make_lenet(3).state_dict()
    torch.save(state, path)
    return path


def test_a_plane_is_measured_drawn_and_described(tmp_path: Path, checkpoint: Path, capsys: Output) -> None:
    found = find(tmp_path / "found", *FAST, "--checkpoint", checkpoint, "--span", 0.5, "--seed", 4)
    shown = capsys.readouterr().out
    workload = load_digits()
    network = workload.build_model(torch.Generator())
    network.load_state_dict(torch.load(checkpoint))
    assert found["x"] == found["y"] == [-0.5, 0.0, 0.5]
    assert found["centre"]["num_predictions"] == 40
    loss = found["centre"]["loss"]
    assert f"digits/lenet-300-100: loss {loss:.4g}, accuracy" in shown
    assert "9 points: loss from" in shown
    assert f"at 100% of the span the loss rises by {found['sharpness'][-1]['mean_rise']:.4g} on average" in shown
    assert "two random directions of 50200 weights, seed 4; another seed shows another plane" in shown
    assert "fresh weights" not in shown
    again = compute_loss_landscape(network, [(workload.data.train_inputs, workload.data.train_targets)], 1, seed=4)
    assert found["seeds"] == again["seeds"]
    assert found["settings"]["model_sha256"] == again["settings"]["model_sha256"]


def test_a_line_to_another_network(tmp_path: Path, checkpoint: Path, capsys: Output) -> None:
    options = ("--to", checkpoint, "--span", -0.5, 1.5, "--grid-points", 5, "--batches", 2, "--batch-size", 20)
    found = find(tmp_path / "found", *options)
    assert found["mode"] == "line"
    assert found["x"] == [-0.5, 0.0, 0.5, 1.0, 1.5]
    assert found["centre"]["num_predictions"] == 40
    assert "These are fresh weights" in capsys.readouterr().out


def test_a_mask_a_choice_and_a_grid(tmp_path: Path) -> None:
    network = make_lenet()
    create_magnitude_mask(network, 0.9).save(tmp_path / "mask.safetensors")
    options = ("--mask", tmp_path / "mask.safetensors", "--include", "fc1.*", "--span", 1, 2)
    found = find(tmp_path / "found", *FAST, *options, "--grid-points", 3, 2)
    assert (len(found["x"]), len(found["y"]), found["span"]) == (3, 2, [1.0, 2.0])
    assert found["settings"]["mask_sha256"]
    assert [parameter["name"] for parameter in found["parameters"]] == ["fc1.weight"]


def test_an_interrupted_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    whole, num_calls = find(tmp_path / "whole", *FAST), 0
    measure = Measurement.__call__

    def measure_and_stop(self: Measurement, *given: Any) -> Any:  # noqa: ANN401 - passed on
        nonlocal num_calls
        num_calls += 1
        if num_calls == 6:
            raise KeyboardInterrupt
        return measure(self, *given)

    monkeypatch.setattr(Measurement, "__call__", measure_and_stop)
    assert main(["landscape", "--output", str(tmp_path / "halves"), *map(str, FAST)]) == 130
    assert "interrupted; the same command goes on: points that were measured stay" in capsys.readouterr().err
    assert load_results(tmp_path / "halves" / "landscape.json")["num_measured"] == 4
    assert find(tmp_path / "halves", *FAST) == whole
    assert num_calls == 6 + 1 + 5
    capsys.readouterr()
    message = refuse(["landscape", "--output", tmp_path / "halves", *FAST, "--seed", 1], capsys)
    assert "--seed is 42 there and 1 here" in message


def test_a_language_model_of_ones_own(tmp_path: Path, capsys: Output) -> None:
    folder, text = save_tiny_llama(tmp_path / "model"), tmp_path / "text.txt"
    text.write_text("the union is strong and the union is the union " * 40, encoding="utf-8")
    options = ("--language-model", folder, "--text", text, "--num-tokens", 8, "--batch-size", 2, "--batches", 2)
    found = find(tmp_path / "found", *options, "--grid-points", 3)
    assert found["centre"]["num_predictions"] == 28
    assert "model: loss" in capsys.readouterr().out


WRONG = {
    "--grid-points 0": "grid_points must be an integer of at least 1",
    "--grid-points 3 3 3": "grid_points must be",
    "--span -1": "span must be a finite number above 0",
    "--batches 0": "--batches must be an integer of at least 1",
    "--batch-size 0": "--batch-size must be an integer of at least 1",
    "--include no.such": "include must match a parameter",
    "--text t.txt": "--text is for a language model",
    "--to nowhere.pt": "nowhere.pt must be a safetensors file or a torch file with a state dict, but there is no",
    "--mask nowhere.safetensors": "nowhere.safetensors must be a whole safetensors file",
    "--device nonsense": "device must be one that computes",
    "--data mnist-format": "needs a folder",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_refused_and_leave_nothing(tmp_path: Path, capsys: Output, arguments: str) -> None:
    folder = tmp_path / "results"
    assert WRONG[arguments] in refuse(["landscape", "--output", folder, *arguments.split()], capsys)
    assert not folder.exists()


def test_seconds_between_writes_are_what_the_help_says(capsys: Output) -> None:
    assert surface.SECONDS_BETWEEN_WRITES == 1
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["landscape", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Stopped at any moment, the same command goes on from the last second" in shown

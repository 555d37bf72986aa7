"""`lottery-tickets connectivity` walks the line between two networks, or trains pairs that part at chosen steps."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lottery_tickets import Mask, compute_linear_connectivity, create_magnitude_mask, load_results
from lottery_tickets._core.states import copy_state
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import Branch, Training
from lottery_tickets.experiments.workload_subject import WorkloadSubject
from tests.models import load_digits, make_lenet
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main
from unified_model_analysis.connectivity_summary import summarise_step

FAST = ("--steps", 12, "--replicates", 2, "--grid-points", 5, "--workers", 1)

BRANCHES: tuple[Branch, Branch] = ("ticket", "copy")


def find(folder: Path, *options: object) -> dict[str, Any]:
    assert main(["connectivity", "--output", str(folder), *map(str, options)]) == 0
    found = load_results(folder / "results.json")
    assert found.pop("provenance")["wall_seconds"] >= 0
    return found


def save_network(path: Path, seed: int) -> dict[str, torch.Tensor]:
    state = copy_state(make_lenet(seed))
    safetensors.torch.save_file(state, path)
    return state


def test_the_line_between_two_checkpoints(tmp_path: Path, capsys: Output) -> None:
    states = [save_network(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    found = find(
        tmp_path / "out", "--checkpoints", tmp_path / "1.safetensors", tmp_path / "2.safetensors", "--grid-points", 4
    )
    shown = capsys.readouterr().out
    workload = load_digits()
    data = [(workload.data.test_inputs, workload.data.test_targets)]
    plain = compute_linear_connectivity(workload.build_model(torch.Generator()), data, *states, num_points=4)
    assert found["pairs"][0]["errors"] == plain["pairs"][0]["errors"]
    assert found["barrier"] == pytest.approx(plain["barrier"], rel=1e-5)
    assert f"instability {100 * found['instability']:.2f} points of error" in shown.splitlines()[0]
    assert [line.split()[0] for line in shown.splitlines()[1:6]] == ["alpha", "0.000", "0.333", "0.667", "1.000"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "path.png", "run.json", ".lock"}


def test_copies_share_k_steps_and_then_part(tmp_path: Path, capsys: Output) -> None:
    found = find(tmp_path, *FAST, "--rewind-steps", 0, 8)
    assert [(row["step"], row["network"], row["num_pairs"]) for row in found["rows"]] == [
        (0, "dense", 2),
        (8, "dense", 2),
    ]
    assert f"{found['rows'][1]['num_stable']} of 2" in capsys.readouterr().out
    assert (tmp_path / "instability.png").stat().st_size > 10_000
    workload = load_digits()
    subject = WorkloadSubject(workload)
    settings: dict[str, Any] = {"rewind_step": 0, "keep_rewind_point": lambda: None}
    run = ExperimentFolder.read(tmp_path / "trainings" / "step-8")
    shared, copied = Training(1, 0, "shared"), Training(1, 0, "copy")
    seeds = [training.derive_seeds(run.plan)["data_order"] for training in (shared, copied)]
    assert len({*seeds, copied.ticket.derive_seeds(run.plan)["data_order"]}) == 3
    model = subject.build(shared.derive_seeds(run.plan)["initialisation"])
    subject.train(model, first_step=0, last_step=8, seed=seeds[0], **settings)
    stored = run.load_rewind_point(copied)
    assert all(torch.equal(stored[name], tensor) for name, tensor in copy_state(model).items())
    subject.train(model, first_step=8, last_step=12, seed=seeds[1], **settings)
    stored = run.load_weights(copied)
    assert all(torch.equal(stored[name], tensor) for name, tensor in copy_state(model).items())


def test_what_is_trained_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    train, calls = WorkloadSubject.train, []

    def train_three_times(subject: WorkloadSubject, *arguments: Any, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - as they come
        calls.append(settings)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train(subject, *arguments, **settings)

    whole = find(tmp_path / "whole", *FAST, "--rewind-steps", 0, 8)
    monkeypatch.setattr(WorkloadSubject, "train", train_three_times)
    halves = tmp_path / "halves"
    assert main(["connectivity", "--output", str(halves), *map(str, FAST), "--rewind-steps", "0", "8"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert find(halves, *FAST, "--rewind-steps", 0, 8) == whole
    assert len(calls) == 2 * (2 + 1 + 2) + 1  # the ends at 0, the shared steps and the ends at 8; one was killed
    find(halves, *FAST, "--rewind-steps", 8)
    assert len(calls) == 11
    capsys.readouterr()
    message = refuse(["connectivity", "--output", halves, *FAST, "--steps", 13, "--rewind-steps", 0], capsys)
    assert "--steps is 12 there and 13 here" in message


def test_more_replicates_and_steps_add_what_is_missing(tmp_path: Path) -> None:
    find(tmp_path / "grown", *FAST, "--replicates", 1, "--rewind-steps", 4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "grown").rglob("*.safetensors")}
    grown, whole = (find(tmp_path / name, *FAST, "--rewind-steps", 0, 4) for name in ("grown", "whole"))
    assert grown == whole
    assert (
        before.items() < {path: path.stat().st_mtime_ns for path in (tmp_path / "grown").rglob("*.safetensors")}.items()
    )


def test_a_mask_is_trained_beside_the_dense_network(tmp_path: Path, capsys: Output) -> None:
    start = save_network(tmp_path / "start.safetensors", 5)
    mask = create_magnitude_mask(start, 0.8)
    mask.save(tmp_path / "mask.safetensors")
    options = ("--start", tmp_path / "start.safetensors", "--mask", tmp_path / "mask.safetensors")
    found = find(tmp_path / "out", *FAST, *options, "--rewind-steps", 4)
    assert [row["network"] for row in found["rows"]] == ["dense", "subnetwork"]
    run = ExperimentFolder.read(tmp_path / "out" / "trainings" / "step-4")
    for branch in BRANCHES:
        trained = run.load_weights(Training(0, 1, branch))
        assert all(
            bool((trained[name][~kept] == 0).all()) for name, kept in Mask.load(tmp_path / "mask.safetensors").items()
        )
        dense = run.load_weights(Training(0, 0, branch))
        assert all(bool(dense[name].any()) for name in mask)
        assert not torch.equal(dense["fc1.weight"], trained["fc1.weight"])
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out"), "--train-again", "99"]) == 0
    shown = capsys.readouterr().out
    assert "step-4: 134 of 134 checks hold; no contradiction was found" in shown
    assert "trained again: 10 of 10 trainings" in shown
    assert "out: its lines are not measured again here" in shown


def test_a_search_says_from_which_step_on(tmp_path: Path, capsys: Output) -> None:
    found = find(tmp_path, *FAST, "--search", "--threshold", 1, "--replicates", 1)
    assert found["searches"]["dense"]["step"] == 0
    assert "dense: stable from step 0 on (2 steps looked at)" in capsys.readouterr().out
    assert [row["step"] for row in found["rows"]] == [0, 11]
    found = find(tmp_path, *FAST, "--search", "--threshold", 0, "--replicates", 1, "--rewind-steps", 4)
    assert "dense: not stable at step 4, the last that was looked at" in capsys.readouterr().out


def test_an_instability_that_is_not_known_is_an_error_not_stability() -> None:
    states = [copy_state(make_lenet(seed)) for seed in (1, 2)]
    batch = [(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))]
    found = compute_linear_connectivity(make_lenet(), batch, *states, num_points=3)
    unknown = {**found, "instability": None}
    with pytest.raises(ValueError, match="must be classifiers, whose errors can be measured, but an error is not kn"):
        summarise_step("dense", 0, [found, unknown])  # type: ignore[list-item] # made by hand


WRONG = {
    "": "say either --checkpoints, or --rewind-steps or --search",
    "--checkpoints a b --search": "say either --checkpoints",
    "--checkpoints a b --start c": "--mask and --start are for trainings",
    "--rewind-steps 0 --mask m": "--mask goes with the weights that it was found from",
    "--rewind-steps 600": "--rewind-steps must be from 0 to 599, got [600]",
    "--rewind-steps 0 --replicates 0": "--replicates must be",
    "--rewind-steps 0 --threshold 2": "--threshold must be from 0 to 1",
    "--rewind-steps 0 --device nonsense": "device must be one that computes",
    "--rewind-steps 0 --statistics-images 0": "--statistics-images must be",
    "--rewind-steps 0 --test-images -5": "--test-images must be an integer of at least 1, got -5",
    "--checkpoints a.safetensors b.safetensors": "a.safetensors must be a safetensors file or a torch file",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_refused_and_leave_nothing(tmp_path: Path, capsys: Output, arguments: str) -> None:
    folder = tmp_path / "results"
    assert WRONG[arguments] in refuse(["connectivity", "--output", folder, *arguments.split()], capsys)
    assert not folder.exists()

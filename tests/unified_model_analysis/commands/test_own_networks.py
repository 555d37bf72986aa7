"""A network of one's own at the shell: each command that takes a network takes `--from module:function`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lottery_tickets import Mask, compute_linear_connectivity, create_magnitude_mask
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments.adam_trainer import AdamTrainer
from lottery_tickets.storage import load_results, load_weights
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main

SOURCE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))

def measure(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()

def make():
    model = build()
    inputs = torch.randn(64, 6)
    batches = [(one, one[:, :1] * 2) for one in inputs.split(8)]
    return {"model": model, "batches": batches[:6], "test_batches": batches[6:], "loss_fn": measure}

def make_classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    inputs = torch.randn(64, 6)
    return model, list(zip(inputs.split(8), inputs[:, :3].argmax(1).split(8)))

def make_loader():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    inputs = torch.randn(64, 6)
    data = TensorDataset(inputs, inputs[:, :3].argmax(1))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    return {"model": model, "batches": loader, "test_batches": [(inputs + 0.1, inputs[:, :3].argmax(1))]}

def make_odd():
    return {"model": build(), "batches": [], "loader": []}
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return name


def build(source: str) -> torch.nn.Module:
    namespace: dict[str, object] = {}
    exec(Path(f"{source}.py").read_text(), namespace)  # noqa: S102 - the test's own
    model = namespace["build"]()  # type: ignore[operator] # a function
    assert isinstance(model, torch.nn.Module)
    return model


def test_a_mask_of_modules_and_not_of_names(source: str, capsys: Output) -> None:
    assert main(["mask", "create", "--from", f"{source}:make", "--sparsity", "0.5", "--output", "m"]) == 0
    assert Mask.load("m") == create_magnitude_mask(build(source), 0.5)
    other = {name: tensor + 1 for name, tensor in build(source).state_dict().items()}
    safetensors.torch.save_file(other, "w.safetensors")
    words = ["mask", "create", "w.safetensors", "--from", f"{source}:make", "--sparsity", "0.5", "--output", "n"]
    assert main(words) == 0
    assert Mask.load("n") == create_magnitude_mask(other, 0.5)
    assert "there must be weights to prune" in refuse(["mask", "create", "--sparsity", 0.5, "--output", "o"], capsys)


def test_scores_evaluation_and_landscape_use_its_loss(source: str, capsys: Output) -> None:
    own = ["--from", f"{source}:make"]
    assert main(["score", "--output", "s.json", *own, "--num-samples", "48", "--output-mask", "m"]) == 0
    assert (
        f"using {source}:make: Sequential of 129 parameters, the weights that it comes with" in capsys.readouterr().err
    )
    assert json.loads(Path("s.json").read_text())["network"] == f"{source}:make"
    assert main(["evaluate", "--output", "e.json", *own, "--mask", "m", "--sparsities", "0.5"]) == 0
    assert load_results("e.json")["quality"]["metric"] == "loss"
    assert main(["landscape", "--output", "land", *own, "--grid-points", "3", "--batches", "2"]) == 0
    assert "over 16 predictions" in capsys.readouterr().out or load_results("land/landscape.json")["num_measured"] == 9


def test_early_bird_holds_out_what_it_names(source: str, capsys: Output) -> None:
    words = ["early-bird", "--output", "eb", "--from", f"{source}:make", "--epochs", "2", "--check-interval", "1"]
    assert main(words) == 0
    assert load_results("eb/results.json")["settings"]["probe"]["held_out"]
    assert main([*words[:2], "none", *words[3:4], f"{source}:make_classes", *words[5:]]) == 0
    assert not load_results("none/results.json")["settings"]["probe"]["held_out"]
    assert capsys.readouterr().out


def test_iterative_pruning_with_controls_goes_on_and_says_what_it_found(source: str, capsys: Output) -> None:
    words = ["imp", "--output", "run", "--from", f"{source}:make_classes", "--levels", "2", "--epochs", "2"]
    assert main([*words, "--replicates", "2"]) == 0
    first = capsys.readouterr().out
    assert "verdict" in first
    rows = load_results("run/results.json")["trainings"]
    assert {row["branch"] for row in rows} == {"ticket", "reinitialised", "shuffled", "random"}
    assert {row["replicate"] for row in rows} == {0, 1}
    assert max(row["level"] for row in rows) == 2
    assert main([*words, "--replicates", "3"]) == 0
    assert {row["replicate"] for row in load_results("run/results.json")["trainings"]} == {0, 1, 2}
    assert main(["verify", "run"]) == 0
    capsys.readouterr()
    assert "--steps cannot be said of a network of one's own" in refuse([*words, "--steps", 5], capsys)
    message = refuse(["imp", "--output", "other", "--epochs", 3], capsys)
    assert "--epochs cannot be said of a workload, whose recipe says it" in message


def test_iterative_pruning_by_a_loss_has_no_figure_of_accuracy(source: str, capsys: Output) -> None:
    words = ["imp", "--output", "run", "--from", f"{source}:make", "--levels", "1", "--epochs", "1"]
    assert main([*words, "--replicates", "2"]) == 0
    assert "figure:" not in capsys.readouterr().out
    assert load_results("run/summary.json")["claims"]["metric"].endswith("loss")
    assert main(["verify", "run"]) == 0
    shutil.copy(Path(__file__), "run/accuracy.png")
    assert main(["verify", "run"]) == 1


def test_a_line_between_two_of_its_checkpoints(source: str, capsys: Output) -> None:
    for name, shift in (("a", 0.0), ("b", 0.1)):
        state = {key: value + shift for key, value in build(source).state_dict().items()}
        safetensors.torch.save_file(state, f"{name}.safetensors")
    own = ["--from", f"{source}:make", "--grid-points", "3"]
    assert main(["connectivity", "--output", "c", *own, "--checkpoints", "a.safetensors", "b.safetensors"]) == 0
    assert f"{source}:make: not judged, without an error: loss barrier " in capsys.readouterr().out
    refused = refuse(["connectivity", "--output", "d", *own, "--rewind-steps", 0], capsys)
    assert "need a classifier, whose errors can be counted" in refused
    assert not Path("d/trainings").exists()
    words = ["connectivity", "--output", "e", *own, "--checkpoints", "a.safetensors", "b.safetensors"]
    assert "--test-images cannot be said of a network of one's own" in refuse([*words, "--test-images", 5], capsys)


def test_pairs_of_copies_are_trained_by_its_trainer_and_verified(source: str, capsys: Output) -> None:
    own = ["--from", f"{source}:make_loader"]
    words = ["connectivity", "--output", "c", *own, "--rewind-steps", "0", "1", "--epochs", "2", "--replicates", "2"]
    assert main([*words, "--grid-points", "3"]) == 0
    assert "dense, step 1: " in capsys.readouterr().out
    rows = load_results("c/results.json")["rows"]
    assert [(row["network"], row["step"], row["num_pairs"]) for row in rows] == [("dense", 0, 2), ("dense", 1, 2)]
    model, loader, test = load_own_data(source)
    found = compute_linear_connectivity(
        model, test, trainer_fn=AdamTrainer(1e-3), num_epochs=2, rewind_epoch=1, num_replicates=2,
        train_dataloader=loader, statistics_dataloader=loader, num_points=3,
    )  # fmt: skip
    assert [pair["errors"] for pair in rows[1]["pairs"]] == [pair["errors"] for pair in found["pairs"]]
    assert main([*words, "--grid-points", "3"]) == 0
    assert main(["verify", "c", "--re-evaluate", "--train-again", "1", *own]) == 0
    capsys.readouterr()
    said = refuse([*words[:5], "--rewind-steps", 2, "--epochs", 2], capsys)
    assert "--rewind-steps must be from 0 to 1, got [2]" in said


def load_own_data(source: str) -> tuple[torch.nn.Module, Any, Any]:
    """Returns what `make_loader` makes."""
    namespace: dict[str, Any] = {}
    exec(Path(f"{source}.py").read_text(), namespace)  # noqa: S102 - the test's own
    made = namespace["make_loader"]()
    return made["model"], made["batches"], made["test_batches"]


def test_a_ticket_is_trained_again_from_its_start_by_its_trainer_and_verified(source: str, capsys: Output) -> None:
    own = ["--from", f"{source}:make_loader"]
    start = {name: value + 0.01 for name, value in load_own_data(source)[0].state_dict().items()}
    safetensors.torch.save_file(start, "start.safetensors")
    create_magnitude_mask(load_own_data(source)[0], 0.5).save("m")
    words = ["evaluate", "--output", "e.json", *own, "--mask", "m", "--start", "start.safetensors", "--epochs", "2"]
    assert main([*words, "--replicates", "2", "--no-robustness"]) == 0
    assert "trained again beside its controls:" in capsys.readouterr().out
    quality = load_results("e.json")["quality"]
    assert (quality["kind"], quality["retrained"]["kind"]) == ("post-hoc and retrained", "retrained")
    assert quality["retrained"]["starting_sha256"] == hash_state(start)
    assert len(quality["retrained"]["trainings"]) == 2 * 5
    assert quality["retrained"]["split"] == "test"
    assert main([*words, "--replicates", "3", "--no-robustness", "--force"]) == 0  # goes on
    assert len(load_results("e.json")["quality"]["retrained"]["trainings"]) == 3 * 5
    assert main(["verify", "e-trainings", "--re-evaluate", *own]) == 0
    capsys.readouterr()
    for odd, said in (
        (["--steps", 3], "--steps cannot be said of a network of one's own"),
        (["--workers", 3], "--workers cannot be said of a network of one's own"),
    ):
        assert said in refuse([*words, "--force", *odd], capsys)
    said = refuse(["evaluate", "--output", "f.json", *own, "--epochs", 2], capsys)
    assert "--epochs cannot be said of what is not trained" in said


def test_a_run_of_it_is_measured_again_with_it(source: str, capsys: Output) -> None:
    run = ["imp", "--output", "run", "--from", f"{source}:make_loader", "--levels", "1", "--epochs", "1"]
    assert main([*run, "--replicates", "2", "--learning-rate", "0.01"]) == 0
    capsys.readouterr()
    assert "at the shell name them by --from module:function" in refuse(["verify", "run", "--re-evaluate"], capsys)
    assert "--from is what is measured again" in refuse(["verify", "run", *run[3:5]], capsys)
    words = ["verify", "run", "--re-evaluate", "--train-again", "2", *run[3:5]]
    assert main([*words, "--learning-rate", "0.01"]) == 0
    assert "no contradiction was found" in capsys.readouterr().out
    assert main(words) == 1  # of another trainer
    assert "what measures is what was trained" in capsys.readouterr().out
    assert main(["verify", "run", "--re-evaluate", "--from", f"{source}:make_classes"]) == 1  # of other data


def test_a_checkpoint_gives_it_other_weights(source: str) -> None:
    state = {key: value * 3 for key, value in build(source).state_dict().items()}
    safetensors.torch.save_file(state, "w.safetensors")
    words = ["score", "--output", "s.json", "--from", f"{source}:make", "--method", "magnitude"]
    assert main([*words, "--checkpoint", "w.safetensors", "--output-scores", "scores.safetensors"]) == 0
    assert torch.equal(load_weights("scores.safetensors")["0.weight"], state["0.weight"].abs())


def test_what_a_function_may_return_is_said(source: str, capsys: Output) -> None:
    message = refuse(["score", "--output", "s.json", "--from", f"{source}:make_odd"], capsys)
    assert message.endswith("got a dict of model, batches, loader")
    for option in (["--language-model", "smollm2"], ["--text", "t.txt"], ["--folder", "."]):
        message = refuse(["score", "--output", "s.json", "--from", f"{source}:make", *option], capsys)
        assert f"{option[0]} is for other networks than those of --from" in message
    assert not Path("s.json").exists()


def test_weights_of_a_change_mask_are_trained_alone_beside_as_many_others(source: str, capsys: Output) -> None:
    own = ["--from", f"{source}:make_loader"]
    namespace: dict[str, Any] = {}
    exec(Path(f"{source}.py").read_text(), namespace)  # noqa: S102 - the test's own
    made = namespace["make_loader"]()
    model = made["model"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    AdamTrainer(0.01)(model, made["batches"], epochs=3)
    safetensors.torch.save_file(before, "before.safetensors")
    safetensors.torch.save_file(dict(model.state_dict()), "after.safetensors")
    words = ["diff", "before.safetensors", "after.safetensors", "--by", "delta", "--sparsity", "0.8"]
    assert main([*words, "--output", "d.json"]) == 0
    [changed] = Path().glob("d.*.mask.safetensors")
    words = ["evaluate", "--output", "e.json", *own, "--mask", str(changed), "--start", "before.safetensors"]
    assert main([*words, "--others", "frozen", "--epochs", "2", "--replicates", "3"]) == 0
    assert "its weights trained alone, others as they were, beside its controls:" in capsys.readouterr().out
    found = load_results("e.json")
    assert {row["branch"] for row in found["retrained"]["trainings"]} == {"ticket", "shuffled", "exponents"}
    assert "robustness" not in found
    assert "quality" not in found  # what is left when the others are zeroed says nothing of a change
    assert main(["report", "e.json", "--output", "r"]) == 0
    assert "exponents" in Path("r/report.html").read_text()
    assert main(["verify", "e-trainings"]) == 0
    message = refuse([*words[:1], "--output", "f.json", *own, "--mask", str(changed), "--others", "frozen"], capsys)
    assert "--others frozen trains the weights of a mask alone" in message

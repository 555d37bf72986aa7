"""What each training keeps of its layers and how much of it moved, against the stored states."""

import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.studies.forging import seal_record
from torch import Tensor, nn

from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets._core.files import read_json, write_json
from lottery_tickets._core.states import copy_state
from lottery_tickets.experiments import engine
from lottery_tickets.experiments.folder import RECORD, RESULTS, ExperimentFolder
from lottery_tickets.experiments.layers import LAYERS
from lottery_tickets.experiments.plan import FRESH
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.experiments.verification import describe_scope, verify_run
from tests.lottery_tickets.experiments.callers import DATA, Trainer, make_model, run
from tests.models import make_mlp


def step_once(lr: float, every: int = 1) -> Callable[..., None]:
    """Returns a trainer that makes one step of SGD an epoch, of every n-th output of each layer alone."""

    def train(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr)
        for _ in range(epochs):
            optimizer.zero_grad()
            for inputs, targets in dataloader:
                nn.functional.cross_entropy(model(inputs), targets).backward()
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad[torch.arange(len(parameter)) % every != 0] = 0
            optimizer.step()

    return train


def forget_layers(folder: Path) -> None:
    """Makes a run what an earlier version would have left."""
    found = ExperimentFolder.read(folder)
    for training in found.plan.list_all_trainings():
        record = read_json(folder / training.path / RECORD)
        seal_record(folder, training, {name: value for name, value in record.items() if name != LAYERS})
    write_json(folder / RESULTS, collect_results(found))


@pytest.mark.parametrize("rewinding", ["weights", "learning_rate"])
def test_counts_are_those_of_the_stored_states(tmp_path: Path, rewinding: str) -> None:
    is_kept_on = rewinding == "learning_rate"  # from one level to the next
    settings: dict[str, Any] = {
        "rewinding": rewinding,
        "rewind_epoch": int(is_kept_on),
        "control_levels": [2],
        "num_replicates": 2,
    }
    found = run(make_model(), step_once(0.1, every=2), run_folder=tmp_path, **settings)
    folder = ExperimentFolder.read(tmp_path)
    trainings = folder.plan.list_all_trainings()
    assert len(trainings) == len(found["trainings"]) > 8
    counted = 0
    for training, row in zip(trainings, found["trainings"], strict=True):
        mask, end = folder.load_mask(training), folder.load_weights(training)
        assert {name: layer["num_kept"] for name, layer in row["layers"].items()} == {
            name: int(kept.sum()) for name, kept in mask.items()
        }
        assert [layer["num_weights"] for layer in row["layers"].values()] == [60, 30]
        total = sum(layer["num_moved"] for layer in row["layers"].values())
        assert row["share_moved"] == total / row["num_kept"]
        assert {layer["dtype"] for layer in row["layers"].values()} == {"float32"}
        if training.branch in FRESH or (is_kept_on and training.level == 0):
            continue  # what they started from is not stored
        goes_on = is_kept_on and training.branch == "ticket"
        start = folder.load_weights(training.parent) if goes_on else folder.load_rewind_point(training)
        for name, kept in mask.items():
            assert row["layers"][name]["num_moved"] == int(((start[name] != end[name]) & kept).sum())
            counted += row["layers"][name]["num_moved"]
    assert counted
    assert [check for check in verify_run(tmp_path) if check.problem] == []


@pytest.mark.parametrize(("dtype", "least", "most"), [(torch.bfloat16, 0.0, 0.2), (torch.float32, 0.8, 1.0)])
def test_steps_below_what_bfloat16_resolves_are_seen(dtype: torch.dtype, least: float, most: float) -> None:
    model, data = make_mlp(dtype, (6, 10, 3)), [(inputs.to(dtype), targets) for inputs, targets in DATA]
    found = compute_iterative_magnitude_pruning(
        model, data, 0.5, trainer_fn=step_once(1e-3), num_epochs=1, control_levels="none", prune_rates=0.3
    )
    shares = [row["share_moved"] for row in found["trainings"]]
    assert all(least <= share <= most for share in shares)
    names = {layer["dtype"] for row in found["trainings"] for layer in row["layers"].values()}
    assert names == {str(dtype).removeprefix("torch.")}


def test_a_trainer_that_returns_another_model_has_moved_its_weights() -> None:
    def train_another(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        del dataloader, epochs
        another = make_model()
        another.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})
        return another

    found = run(make_model(), train_another)
    assert [row["share_moved"] for row in found["trainings"]] == [1.0] * len(found["trainings"])
    still = run(make_model(), lambda model, dataloader, epochs: None)  # noqa: ARG005 - called by these names
    assert [row["share_moved"] for row in still["trainings"]] == [0.0] * len(still["trainings"])


def test_a_simulation_counts_what_is_kept_alone() -> None:
    with pytest.warns(UserWarning, match="this is a simulation"):
        found = compute_iterative_magnitude_pruning(make_model(), DATA, 0.5, prune_rates=0.3)
    last = found["trainings"][-1]
    assert last["layers"] == {
        name: {"num_weights": kept.numel(), "num_kept": int(kept.sum())} for name, kept in found["final_mask"].items()
    }
    assert "share_moved" not in last


def test_the_start_is_let_go_before_the_trained_state_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a large model that is rewound to a later epoch would be held once more than before."""
    copies: list[list[weakref.ref[Tensor]]] = []
    held: list[int] = []

    def copy(model: nn.Module) -> dict[str, Tensor]:
        held.append(sum(any(tensor() is not None for tensor in state) for state in copies))
        state = copy_state(model)
        copies.append([weakref.ref(tensor) for tensor in state.values()])
        return state

    monkeypatch.setattr(engine, "copy_clean_state", copy)
    found = run(make_model(), Trainer(), rewind_epoch=1)
    assert len(held) == 2 * len(found["trainings"])
    assert held == [0] * len(held)


def test_a_folder_of_an_earlier_version_is_read_verified_and_grown(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run_folder": tmp_path, "control_levels": [1]}
    whole = run(make_model(), Trainer(), target=0.3, **settings)
    forget_layers(tmp_path)
    checks = verify_run(tmp_path)
    assert [check for check in checks if check.problem] == []
    said = "not recorded by the earlier version that trained: what each layer keeps, and how many weights moved"
    assert describe_scope(tmp_path, checks, is_measured=False).count(said) == 1
    again = run(make_model(), Trainer(), target=0.3, **settings)
    left_out = {"layers", "share_moved"}
    assert again["trainings"] == [
        {name: value for name, value in row.items() if name not in left_out} for row in whole["trainings"]
    ]
    grown = run(make_model(), Trainer(), target=0.6, **settings)
    assert [left_out <= row.keys() for row in grown["trainings"]] == [row["level"] > 1 for row in grown["trainings"]]
    assert any("layers" in row for row in grown["trainings"])
    assert [check for check in verify_run(tmp_path) if check.problem] == []

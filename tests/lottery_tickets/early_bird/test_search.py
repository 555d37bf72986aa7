"""Early-bird tickets end to end: real trainings, what is called converged, what comes back, resuming."""

import logging
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import (
    EarlyBirdWatcher,
    Mask,
    compute_early_bird_tickets,
    create_magnitude_mask,
    detect_early_bird_convergence,
    hold_mask,
    load_results,
    save_results,
)
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.early_bird.watcher import EarlyBirdResults
from lottery_tickets.workloads import load_workload
from tests.training import TrainedNorms

CONTRACT_KEYS = {
    *("method", "target_sparsity", "convergence_threshold", "converged", "convergence_epoch", "checkpoints"),
    *("final_rankings", "final_mask"),
}


def load_digits(batch_size: int = 60) -> DataLoader[Any]:
    data = load_workload("digits", "lenet-300-100").data
    return DataLoader(TensorDataset(data.train_inputs, data.train_targets), batch_size, shuffle=True)


def build_lenet(seed: int = 0) -> nn.Module:
    return load_workload("digits", "lenet-300-100").build_model(torch.Generator().manual_seed(seed))


def find_digits(**arguments: Any) -> tuple[EarlyBirdResults, nn.Module]:  # noqa: ANN401 - of many types
    model = build_lenet()
    settings = {"max_epochs": 6, "check_interval": 1, "learning_rate": 0.1, "momentum": 0.9, **arguments}
    return compute_early_bird_tickets(model, load_digits(), **settings), model


def train_with_sgd(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


def strip(results: EarlyBirdResults) -> dict[str, Any]:
    """What must be equal in two runs: all but the time that checks took."""
    checks = [{name: value for name, value in check.items() if name != "seconds"} for check in results["checkpoints"]]
    tensors = {name: hash_state(results[name]) for name in ("final_rankings", "starting_weights")}
    return {**results, **tensors, "checkpoints": checks, "final_mask": results["final_mask"].digest}


@pytest.mark.parametrize("ranking", [True, False])
def test_a_ticket_emerges_and_comes_back_with_its_evidence(ranking: bool, tmp_path: Path) -> None:
    before = hash_state(copy_state(build_lenet()))
    found, model = find_digits(use_magnitude_ranking=ranking, target_sparsity=0.7)
    assert found.keys() >= CONTRACT_KEYS
    assert found["method"] == ("magnitude_ranking" if ranking else "mask_distance")
    assert found["converged"]
    assert found["verdict"] == "converged"
    assert found["convergence_epoch"] == found["checkpoints"][-1]["epoch"] < 6
    mask = found["final_mask"]
    assert mask == create_magnitude_mask(model, 0.7)
    assert mask.num_kept == mask.num_weights - round(0.7 * mask.num_weights)
    assert hash_state(found["starting_weights"]) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(check["correlation"] is not None and check["loss"] is not None for check in found["checkpoints"])
    assert found["checkpoints"][-1]["step"] == 18 * found["checkpoints"][-1]["epoch"]
    replayed = detect_early_bird_convergence(found["checkpoints"], method=found["method"])
    assert replayed["convergence_epoch"] == found["convergence_epoch"]
    save_results({**found, "starting_weights": None}, tmp_path / "found.json")
    loaded = load_results(tmp_path / "found.json")
    assert loaded["checkpoints"] == found["checkpoints"]
    assert loaded["final_mask"] == mask


def test_rankings_sort_like_magnitudes() -> None:
    found, model = find_digits(max_epochs=1)
    ranks = torch.cat([ranking.flatten().to(torch.int64) for ranking in found["final_rankings"].values()])
    names = list(found["final_rankings"])
    magnitudes = torch.cat([dict(model.named_parameters())[name].detach().abs().flatten() for name in names])
    order = magnitudes.argsort()
    assert bool((ranks[order].diff() >= 0).all())
    # A code of 16 bits stands for a few neighbours, which share their mean rank.
    assert bool((ranks[order] - torch.linspace(0, 65535, len(order))).abs().max() < 200)
    assert all(ranking.dtype == torch.uint16 for ranking in found["final_rankings"].values())


@pytest.mark.parametrize("learning_rate", [0.0, 1e-6])
@pytest.mark.parametrize("ranking", [True, False])
def test_weights_that_hardly_move_are_no_ticket(learning_rate: float, ranking: bool) -> None:
    found, _ = find_digits(learning_rate=learning_rate, momentum=0.0, use_magnitude_ranking=ranking)
    assert found["verdict"] == "trivially stable"
    assert not found["converged"]
    assert found["convergence_epoch"] is None
    assert detect_early_bird_convergence(found["checkpoints"], method=found["method"], require_movement=False)[
        "converged"
    ]
    if learning_rate == 0:
        assert {check["share_moved"] for check in found["checkpoints"]} == {0.0}
        assert {check["correlation"] for check in found["checkpoints"]} == {1.0}


def test_bfloat16_weights_move_with_stochastic_rounding_only() -> None:
    shares = {}
    for stochastic in (True, False):
        data = load_workload("digits", "lenet-300-100").data
        batches = [(data.train_inputs[:600].bfloat16(), data.train_targets[:600])]
        found = compute_early_bird_tickets(
            build_lenet().bfloat16(), batches, max_epochs=3, check_interval=1, stochastic_rounding=stochastic
        )
        assert found["verdict"] == "trivially stable"
        shares[stochastic] = float(found["checkpoints"][-1]["share_moved"] or 0)
    assert shares[True] > 3 * shares[False]  # near zero both round weights that are small enough to take the step


def test_a_model_that_diverges_is_said_to() -> None:
    def explode(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        del dataloader, epochs
        with torch.no_grad():
            next(model.parameters())[0, 0] = torch.nan

    found = compute_early_bird_tickets(build_lenet(), load_digits(), explode, max_epochs=9, check_interval=1)
    assert found["verdict"] == "diverged"
    assert len(found["checkpoints"]) == 1
    assert found["checkpoints"][0]["correlation"] is None
    with pytest.raises(ValueError, match=r"NaN or infinite.*lower the learning rate"):
        find_digits(learning_rate=1e6)


def test_trainer_that_returns_none_a_copy_or_the_model_gives_one_result() -> None:
    def train_a_copy(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        copy = deepcopy(model)
        train_with_sgd(copy, dataloader, epochs=epochs)
        return copy

    def train_and_return(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        train_with_sgd(model, dataloader, epochs=epochs)
        return model

    found = []
    for trainer in (train_with_sgd, train_a_copy, train_and_return):
        model = build_lenet()
        results = compute_early_bird_tickets(model, load_digits(), trainer, max_epochs=6, check_interval=1)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert create_magnitude_mask(model, 0.5) == results["final_mask"]
        found.append({**strip(results), "settings": None})
    assert found[0]["converged"]
    assert found[0]["checkpoints"][0]["loss"] < found[0]["checkpoints"][0]["start_loss"]
    assert {**found[0], "final_mask": None} == {**found[1], "final_mask": None} == {**found[2], "final_mask": None}
    with pytest.raises(ValueError, match="trainer_fn must return the model it is given, a copy of it or None"):
        compute_early_bird_tickets(build_lenet(), load_digits(), lambda *_, epochs: nn.Linear(epochs, 2))


def test_trainer_gets_split_batches_and_all_of_the_data() -> None:
    sizes = []

    def count(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        del model
        sizes.extend([len(inputs) for _ in range(epochs) for inputs, _ in dataloader])

    compute_early_bird_tickets(build_lenet(), load_digits(), count, max_epochs=2, check_interval=1, max_batch_size=25)
    assert max(sizes) <= 25
    assert sum(sizes) == 2 * 1079


def test_batches_that_only_the_trainer_understands_are_its_own_affair() -> None:
    def train(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        for _ in range(epochs):
            assert list(dataloader) == ["text"]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)

    found = compute_early_bird_tickets(build_lenet(), ["text"], train, max_epochs=3, check_interval=1)
    assert [check["loss"] for check in found["checkpoints"]] == [None] * 3
    assert found["verdict"] == "trivially stable"


@pytest.mark.parametrize("check_steps", [7, [1, 5, 9], "log"])
def test_checks_by_step(check_steps: Any) -> None:  # noqa: ANN401 - the argument's types
    found, _ = find_digits(max_epochs=1, check_steps=check_steps, learning_rate=1e-3)
    wanted = {"7": [7, 14, 18], "[1, 5, 9]": [1, 5, 9], "log": [1, 2, 3, 4, 6, 8, 12, 16, 18]}[str(check_steps)]
    assert [check["step"] for check in found["checkpoints"]] == wanted
    assert [check["num_batches"] for check in found["checkpoints"]] == [
        b - a for a, b in zip([0, *wanted], wanted, strict=False)
    ]
    assert found["checkpoints"][-1]["epoch"] == wanted[-1] / 18


class Interrupt(Exception):  # noqa: N818 - stands for KeyboardInterrupt
    """Comes in the middle of a run."""


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"use_sgd": False, "learning_rate": 1e-3, "momentum": 0.0},
        {"use_magnitude_ranking": False},
        {"check_steps": 13},
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, trained = find_digits(run_folder=tmp_path / "whole", convergence_threshold=0.999, **arguments)
    assert not (tmp_path / "whole" / "check-0001").exists()
    again, _ = find_digits(run_folder=tmp_path / "whole", convergence_threshold=0.999, **arguments)
    assert strip(again) == strip(whole)

    check, calls = EarlyBirdWatcher.check, []

    def fail(watcher: EarlyBirdWatcher, *positional: Any) -> Any:  # noqa: ANN401 - as check
        calls.append(1)
        if len(calls) == 4:
            raise Interrupt("the plug is pulled")
        return check(watcher, *positional)

    monkeypatch.setattr(EarlyBirdWatcher, "check", fail)
    model = build_lenet()
    settings = {"max_epochs": 6, "check_interval": 1, "learning_rate": 0.1, "momentum": 0.9, **arguments}
    settings |= {"run_folder": tmp_path / "cut", "convergence_threshold": 0.999}
    with pytest.raises(Interrupt, match="the plug"):
        compute_early_bird_tickets(model, load_digits(), **settings)
    assert hash_state(copy_state(model)) == hash_state(copy_state(build_lenet()))
    resumed = compute_early_bird_tickets(model, load_digits(), **settings)
    assert strip(resumed) == strip(whole)
    assert hash_state(copy_state(model)) == hash_state(copy_state(trained))
    with pytest.raises(
        ValueError, match=r"must be the folder of this run, but it differs in learning_rate, trainer; take another"
    ):
        compute_early_bird_tickets(build_lenet(), load_digits(), **{**settings, "learning_rate": 0.2})


def test_a_run_that_has_converged_is_not_trained_on(tmp_path: Path) -> None:
    first, trained = find_digits(run_folder=tmp_path)
    assert first["converged"]
    again, model = find_digits(run_folder=tmp_path)
    assert strip(again) == strip(first)
    assert hash_state(copy_state(model)) == hash_state(copy_state(trained))


@pytest.mark.parametrize("name", ["model.safetensors", "watch.safetensors", "trainer.pt", "history.json"])
def test_a_run_that_was_cut_short_or_altered_is_refused(name: str, tmp_path: Path) -> None:
    settings = {"max_epochs": 1, "run_folder": tmp_path / "run"}
    find_digits(**settings)
    [path] = (tmp_path / "run").glob(f"check-*/{name}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{name} must"):
        find_digits(**settings)


def test_what_it_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        find_digits(max_epochs=2)
    text = caplog.text
    assert "SGD inside the backward pass" in text
    assert "18 batches" in text
    assert "mean loss" in text
    with caplog.at_level(logging.INFO):
        find_digits(max_epochs=1, use_sgd=False, momentum=0.0)
    assert "AdamW" in caplog.text


def test_a_held_mask_stays_held() -> None:
    model = build_lenet()
    mask = create_magnitude_mask(model, 0.8)
    hold_mask(model, mask)
    compute_early_bird_tickets(model, load_digits(), max_epochs=1, learning_rate=0.1)
    for name, kept in mask.items():
        assert bool((dict(model.named_parameters())[name][~kept] == 0).all())


def test_the_watcher_only_reads() -> None:
    weights = []
    for watches in (True, False):
        model = build_lenet()
        watcher = EarlyBirdWatcher(model, check_steps=2) if watches else None
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        torch.manual_seed(0)
        for step, (inputs, targets) in enumerate(load_digits(), start=1):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if watcher is not None:
                assert (watcher.observe(model, step, loss=loss.detach()) is None) == (step % 2 == 1)
        weights.append(hash_state(copy_state(model)))
    assert weights[0] == weights[1]


def test_arguments_out_of_range_are_named() -> None:
    for arguments, message in (
        ({"max_epochs": 0}, "max_epochs must be an integer of at least 1, got 0"),
        ({"check_interval": 0}, "check_interval must be"),
        ({"target_sparsity": 1.5}, "sparsity must be from 0"),
        ({"convergence_threshold": 2}, "convergence_threshold must be from 0 to 1, got 2"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"check_steps": 0}, "check_steps must be"),
        ({"check_steps": "sometimes"}, "check_steps must be"),
        ({"channels": True}, "the model has none"),
        ({"max_batch_size": 0}, "max_batch_size must be"),
    ):
        with pytest.raises(ValueError, match=message):
            find_digits(**arguments)
    with pytest.raises(TypeError, match=r"further arguments must be among check_steps, .*, got epochs"):
        find_digits(epochs=3)
    with pytest.raises(TypeError, match="must start anew each epoch"):
        compute_early_bird_tickets(build_lenet(), iter([1]))
    with pytest.raises(ValueError, match="a trainer_fn trains whole epochs"):
        compute_early_bird_tickets(build_lenet(), load_digits(), train_with_sgd, check_steps=3)
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module"):
        EarlyBirdWatcher("model")  # type: ignore[arg-type] # the test


def test_the_watcher_saves_ticket_and_evidence(tmp_path: Path) -> None:
    model = build_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=1)
    with pytest.raises(ValueError, match="must be a check before there are results"):
        watcher.results()
    watcher.observe(model, 1)
    watcher.save(tmp_path)
    assert Mask.load(tmp_path / "ticket.safetensors") == watcher.draw_ticket()
    assert load_results(tmp_path / "evidence.json")["verdict"] == "still changing"


def test_the_ticket_is_that_of_the_check_that_found_it_converged() -> None:
    model = build_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=18)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    drawn = None
    for step, (inputs, targets) in enumerate([batch for _ in range(9) for batch in load_digits()], start=1):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watcher.observe(model, step, loss=loss.detach())
        if watcher.converged and drawn is None:
            drawn = create_magnitude_mask(model, 0.5)
    assert drawn is not None
    assert watcher.draw_ticket() == drawn == watcher.results()["final_mask"]
    assert watcher.draw_ticket(last=True) == create_magnitude_mask(model, 0.5) != drawn


def test_splitting_batches_changes_little() -> None:
    def train(size: int | None, use_sgd: bool) -> Tensor:
        model = build_lenet()
        settings = {"learning_rate": 0.01 if use_sgd else 1e-3, "use_sgd": use_sgd}
        compute_early_bird_tickets(model, load_digits(), max_epochs=1, max_batch_size=size, **settings)  # type: ignore[arg-type] # of their types
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    start = torch.cat([parameter.detach().flatten() for parameter in build_lenet().parameters()])
    # SGD's pieces are steps of their own, equal to first order in the rate; AdamW accumulates: only rounding differs.
    for use_sgd, tolerance in ((True, 0.05), (False, 1e-3)):
        whole, split = train(None, use_sgd), train(16, use_sgd)
        assert float((split - whole).norm() / (whole - start).norm()) < tolerance


def test_channels_are_ranked_by_their_scales_with_the_published_penalty() -> None:
    training = TrainedNorms(0.1)
    data = list(zip(training.inputs.split(60), training.targets.split(60), strict=True))
    sizes = {}
    for penalty in (None, 0.05):
        model = deepcopy(training.model)
        found = compute_early_bird_tickets(
            model,
            data,
            max_epochs=12,
            check_interval=1,
            target_sparsity=0.3,
            use_magnitude_ranking=False,
            learning_rate=0.1,
            channels=True,
            norm_l1=penalty,
        )
        assert list(found["final_mask"]) == ["1.weight", "4.weight"]
        assert found["final_mask"].num_kept == 70
        assert found["settings"]["norm_l1"] == (penalty or 1e-4)
        assert found["verdict"] == "converged"
        assert [len(check["queue_distances"]) for check in found["checkpoints"][:6]] == [0, 1, 2, 3, 4, 4][
            : len(found["checkpoints"])
        ]
        assert found["starting_weights"].keys() == model.state_dict().keys()
        sizes[penalty] = float(model[1].weight.detach().abs().mean())  # type: ignore[operator] # a Sequential
    assert sizes[0.05] < sizes[None]


def test_a_language_model_in_bfloat16() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, use_cache=False
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)  # tiny and random, to be fast
    batches = [{"input_ids": torch.randint(64, (4, 16))} for _ in range(3)]
    found = compute_early_bird_tickets(model, batches, max_epochs=3, check_interval=1, max_batch_size=2)
    assert found["verdict"] == "trivially stable"
    assert all(name.endswith("proj.weight") for name in found["final_mask"])
    assert 0 < float(found["checkpoints"][-1]["share_moved"] or 0) < 0.2
    assert all(weight.dtype == torch.bfloat16 for weight in found["starting_weights"].values())

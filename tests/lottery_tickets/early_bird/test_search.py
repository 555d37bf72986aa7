"""Early-bird tickets end to end: real trainings, what is called converged, what comes back."""

import logging
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lottery_tickets import (
    ConvergenceRule,
    EarlyBirdWatcher,
    TrainerSettings,
    compute_early_bird_tickets,
    create_magnitude_mask,
    detect_early_bird_convergence,
    hold_mask,
    load_results,
    save_results,
    shrink,
)
from lottery_tickets._core.states import copy_state, hash_state
from tests.lottery_tickets.early_bird.digits import find_digits, make_digits_loader, make_held_out, train_with_sgd
from tests.models import TrainedNorms, load_digits, make_language_model, make_lenet

CONTRACT_KEYS = {
    *("method", "target_sparsity", "convergence_threshold", "converged", "convergence_epoch", "checkpoints"),
    *("final_rankings", "final_mask"),
}


@pytest.mark.parametrize("ranking", [True, False])
def test_a_ticket_emerges_and_comes_back_with_its_evidence(ranking: bool, tmp_path: Path) -> None:
    before = hash_state(copy_state(make_lenet()))
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
    replayed = detect_early_bird_convergence(found["checkpoints"], ConvergenceRule(method=found["method"]))
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
    assert detect_early_bird_convergence(
        found["checkpoints"], ConvergenceRule(method=found["method"], require_movement=False)
    )["converged"]
    if learning_rate == 0:
        assert {check["share_moved"] for check in found["checkpoints"]} == {0.0}
        assert {check["correlation"] for check in found["checkpoints"]} == {1.0}


def test_bfloat16_weights_move_with_stochastic_rounding_only() -> None:
    shares = {}
    for stochastic in (True, False):
        data = load_digits().data
        batches = [(data.train_inputs[:600].bfloat16(), data.train_targets[:600])]
        training = TrainerSettings(stochastic_rounding=stochastic)
        found = compute_early_bird_tickets(
            make_lenet().bfloat16(), batches, max_epochs=3, check_interval=1, training=training
        )
        assert found["verdict"] == "trivially stable"
        shares[stochastic] = float(found["checkpoints"][-1]["share_moved"] or 0)
    assert shares[True] > 3 * shares[False]  # near zero both round weights that are small enough to take the step


def test_a_model_that_diverges_is_said_to() -> None:
    def explode(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        del dataloader, epochs
        with torch.no_grad():
            next(model.parameters())[0, 0] = torch.nan

    found = compute_early_bird_tickets(make_lenet(), make_digits_loader(), explode, max_epochs=9, check_interval=1)
    assert found["verdict"] == "diverged"
    assert len(found["checkpoints"]) == 1
    assert found["checkpoints"][0]["correlation"] is None
    with pytest.raises(ValueError, match=r"NaN or infinite.*lower the learning rate"):
        find_digits(learning_rate=1e6)


@pytest.mark.parametrize("check_steps", [7, [1, 5, 9], "log"])
def test_checks_by_step(check_steps: Any) -> None:  # noqa: ANN401 - the argument's types
    found, _ = find_digits(max_epochs=1, check_steps=check_steps, learning_rate=1e-3)
    wanted = {"7": [7, 14, 18], "[1, 5, 9]": [1, 5, 9], "log": [1, 2, 3, 4, 6, 8, 12, 16, 18]}[str(check_steps)]
    assert [check["step"] for check in found["checkpoints"]] == wanted
    assert [check["num_batches"] for check in found["checkpoints"]] == [
        b - a for a, b in zip([0, *wanted], wanted, strict=False)
    ]
    assert found["checkpoints"][-1]["epoch"] == wanted[-1] / 18


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
    model = make_lenet()
    mask = create_magnitude_mask(model, 0.8)
    hold_mask(model, mask)
    compute_early_bird_tickets(model, make_digits_loader(), max_epochs=1, learning_rate=0.1)
    for name, kept in mask.items():
        assert bool((dict(model.named_parameters())[name][~kept] == 0).all())


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
    with pytest.raises(TypeError, match="must start anew each epoch"):
        compute_early_bird_tickets(make_lenet(), iter([1]))
    with pytest.raises(ValueError, match="a trainer_fn trains whole epochs"):
        compute_early_bird_tickets(make_lenet(), make_digits_loader(), train_with_sgd, check_steps=3)
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module"):
        EarlyBirdWatcher("model")  # type: ignore[arg-type] # the test


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
            training=TrainerSettings(learning_rate=0.1, norm_l1=penalty),
            channels=True,
        )
        assert list(found["final_mask"]) == ["1.weight", "4.weight"]  # of linear layers, which have no channels
        assert found["final_mask"].num_kept == 70
        assert found["settings"]["norm_l1"] == (penalty or 1e-4)
        assert found["verdict"] == "converged"
        assert [len(check["queue_distances"]) for check in found["checkpoints"][:6]] == [0, 1, 2, 3, 4, 4][
            : len(found["checkpoints"])
        ]
        assert found["starting_weights"].keys() == model.state_dict().keys()
        sizes[penalty] = float(model[1].weight.detach().abs().mean())  # type: ignore[operator] # a Sequential
    assert sizes[0.05] < sizes[None]


def test_a_ticket_of_channels_is_of_whole_ones_and_shrinks() -> None:
    convolutions = [
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.BatchNorm2d(12),
        nn.ReLU(),
    ]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(12 * 16, 10))
    images = torch.randn(32, 1, 8, 8)
    samples = list(zip(images, torch.randint(10, (32,)), strict=True))
    data: DataLoader[Any] = DataLoader(samples, 8, shuffle=True)  # type: ignore[arg-type]  # a list will do
    state = torch.get_rng_state()
    options: dict[str, Any] = {"max_epochs": 2, "check_interval": 1, "target_sparsity": 0.4, "learning_rate": 0.1}
    found = compute_early_bird_tickets(model, data, channels=True, **options)
    assert torch.equal(torch.get_rng_state(), state)
    mask, scales = found["final_mask"], [cast("Tensor", model[place].weight).detach().abs() for place in (1, 4)]
    assert sum(mask.provenance["kept"].values()) == 12
    least = torch.cat(scales).topk(12).values.min()
    assert all(
        torch.equal(mask[f"{place}.weight"], scale >= least) for place, scale in zip((1, 4), scales, strict=True)
    )
    smaller = shrink(model, mask, example_inputs=images)
    assert smaller.report["difference"] is not None
    assert smaller.report["difference"] < 1e-5
    assert found["verdict"] == mask.provenance["verdict"]


def test_a_language_model_in_bfloat16() -> None:
    model = make_language_model("Llama").bfloat16()
    batches = [{"input_ids": torch.randint(23, (4, 16))} for _ in range(3)]
    found = compute_early_bird_tickets(model, batches, max_epochs=3, check_interval=1, max_batch_size=2)
    assert found["verdict"] == "trivially stable"
    assert all(name.endswith("proj.weight") for name in found["final_mask"])
    assert 0 < float(found["checkpoints"][-1]["share_moved"] or 0) < 0.2
    assert all(weight.dtype == torch.bfloat16 for weight in found["starting_weights"].values())


def test_a_default_rate_that_moves_nothing_is_told_with_what_to_try(caplog: pytest.LogCaptureFixture) -> None:
    """1e-4, promised as the default, is for fine-tuning."""
    arguments: dict[str, Any] = {"max_epochs": 4, "check_interval": 1, "probe": make_held_out()}
    found = compute_early_bird_tickets(make_lenet(), make_digits_loader(), **arguments)
    assert found["verdict"] == "trivially stable"
    advice = "fresh weights try what was published, training=TrainerSettings(learning_rate=0.1, momentum=0.9)"
    assert advice in found["reason"]
    assert [advice in record.message for record in caplog.records if record.levelname == "WARNING"] == [True]
    caplog.clear()
    tried = TrainerSettings(learning_rate=0.1, momentum=0.9)
    found = compute_early_bird_tickets(make_lenet(), make_digits_loader(), training=tried, **arguments)
    assert (found["checkpoints"][-1]["corrected_start_distance"] or 0.0) > ConvergenceRule.movement_floor
    assert all("fine-tuning" not in check["reason"] for check in found["checkpoints"])
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_small_rate_of_ones_own_is_not_called_the_default() -> None:
    found, _ = find_digits(max_epochs=4, learning_rate=1e-5, momentum=0.0)
    assert found["verdict"] == "trivially stable"
    assert "fine-tuning" not in found["reason"]

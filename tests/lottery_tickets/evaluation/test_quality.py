import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import (
    Mask,
    apply_mask,
    compute_lottery_ticket_quality,
    create_magnitude_mask,
    hold_mask,
    load_results,
    save_results,
)
from lottery_tickets.experiments.plan import Branch
from lottery_tickets.experiments.verification import verify_run
from statistical_report_generator.claims.assessment import assess_claims
from tests.models import make_convolutions, make_language_model, make_mlp
from tests.traces import take_traces

Pairs = list[tuple[Tensor, Tensor]]


def make_data(num_batches: int = 3) -> Pairs:
    return [(torch.randn(8, 5), torch.randint(3, (8,))) for _ in range(num_batches)]


def make_loader() -> "DataLoader[tuple[Tensor, ...]]":
    data = TensorDataset(torch.randn(40, 5), torch.randint(3, (40,)))
    return DataLoader(data, 8, shuffle=True)


def train(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


@torch.no_grad()
def test_post_hoc_quality_is_that_of_a_pruned_copy() -> None:
    model = make_convolutions()
    data = [(torch.randn(8, 2, 4, 4).double(), torch.randint(3, (8,))) for _ in range(3)]
    mask = create_magnitude_mask(model, 0.5)
    quality = compute_lottery_ticket_quality(model, mask, data)
    pruned = copy.deepcopy(model).eval()
    apply_mask(pruned, mask)
    model.eval()
    inputs, targets = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    for which, network in (("baseline", model), ("ticket", pruned)):
        logits = network(inputs)
        loss, accuracy = nn.functional.cross_entropy(logits, targets), (logits.argmax(1) == targets).double().mean()
        assert quality[f"{which}_loss"] == pytest.approx(float(loss), rel=1e-12)  # type: ignore[literal-required]
        assert quality[f"{which}_performance"] == pytest.approx(float(accuracy))  # type: ignore[literal-required]
    assert quality["ticket_performance"] is not None
    ratio = quality["ticket_performance"] / quality["baseline_performance"]
    assert quality["performance_retention"] == pytest.approx(ratio)
    assert (quality["kind"], quality["metric"], quality["sparsity"]) == ("post-hoc", "accuracy", mask.sparsity)
    assert quality["retrained"] is None


def test_language_models_retain_perplexity() -> None:
    model = make_language_model("Llama").float()
    data = [{"input_ids": torch.randint(23, (2, 8))}]
    quality = compute_lottery_ticket_quality(model, create_magnitude_mask(model, 0.5), data)
    assert quality["ticket_loss"] is not None
    expected = math.exp(quality["baseline_loss"] - quality["ticket_loss"])
    assert (quality["metric"], quality["higher_is_better"]) == ("perplexity", False)
    assert quality["performance_retention"] == pytest.approx(expected)


@torch.no_grad()
def test_a_full_and_an_empty_mask() -> None:
    model, data = make_mlp(torch.float32), make_data()
    full = {name: torch.ones_like(model.get_parameter(name)) for name in create_magnitude_mask(model, 0.0)}
    assert compute_lottery_ticket_quality(model, full, data)["performance_retention"] == 1
    empty = {name: torch.zeros_like(tensor) for name, tensor in full.items()}
    quality = compute_lottery_ticket_quality(model, empty, data)
    assert quality["sparsity"] == 1
    logits = model.get_parameter("4.bias").expand(24, 3)  # nothing of the input is left
    loss = nn.functional.cross_entropy(logits, torch.cat([targets for _, targets in data]))
    assert quality["ticket_loss"] == pytest.approx(float(loss), rel=1e-6)


def test_retraining_trains_every_branch_on_one_budget_from_the_right_start() -> None:
    model, loader, test = make_mlp(torch.float32), make_loader(), make_data()
    mask = create_magnitude_mask(model, 0.5)
    theta_0 = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))  # as if it had been trained
    starts: list[dict[str, Tensor]] = []
    orders: list[Tensor] = []

    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        assert epochs == 2
        starts.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        orders.append(next(iter(dataloader))[0])
        train(model, dataloader, epochs=epochs)

    before = take_traces(model)
    quality = compute_lottery_ticket_quality(
        model, mask, test, trainer_fn=trainer, num_epochs=2, train_dataloader=loader, starting_weights=theta_0,
        num_replicates=2,
    )  # fmt: skip
    assert take_traces(model) == before
    dense, ticket, reinitialised, shuffled, random = starts[:5]
    kept = {name: mask[name] for name in mask}
    assert all(torch.equal(dense[name], theta_0[name]) for name in theta_0)
    for name in mask:
        assert torch.equal(ticket[name], theta_0[name] * kept[name])
        assert torch.equal(reinitialised[name] != 0, kept[name])
        assert not torch.equal(reinitialised[name][kept[name]], theta_0[name][kept[name]])
        assert torch.equal(shuffled[name][shuffled[name] != 0], theta_0[name][shuffled[name] != 0])
        assert int((random[name] != 0).sum()) == int((shuffled[name] != 0).sum()) == int(kept[name].sum())
    assert any(not torch.equal(shuffled[name] != 0, kept[name]) for name in mask)
    assert any(not torch.equal(shuffled[name] != 0, random[name] != 0) for name in mask)
    # One order of the data a replicate, whatever the branch; another in the next.
    assert all(torch.equal(order, orders[0]) for order in orders[:5])
    assert not torch.equal(orders[0], orders[5])
    assert quality["retrained"] is not None
    assert (quality["kind"], quality["retrained"]["kind"]) == ("post-hoc and retrained", "retrained")
    rows = quality["retrained"]["trainings"]
    assert [(row["replicate"], row["level"], row["branch"]) for row in rows[:5]] == [
        (0, 0, "ticket"), (0, 1, "ticket"), (0, 1, "reinitialised"), (0, 1, "shuffled"), (0, 1, "random"),
    ]  # fmt: skip
    assert [row["density"] for row in rows[:2]] == [1.0, mask.density]
    assert set(rows[0]["history"]["end"]) >= {"step", "test_loss", "test_accuracy", "metric"}
    assert quality["retrained"]["split"] == "test"


def test_retraining_is_what_claims_are_made_from_and_is_saved(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    model, test = make_mlp(torch.float32), make_data()
    quality = compute_lottery_ticket_quality(
        model, create_magnitude_mask(model, 0.5), test, trainer_fn=train, train_dataloader=make_loader(),
        num_replicates=3,
    )  # fmt: skip
    assert quality["retrained"] is not None
    claims = assess_claims(quality["retrained"], moment="end")
    assert len(claims["levels"]) == 1
    save_results(quality, tmp_path / "quality.json")
    assert load_results(tmp_path / "quality.json") == quality


def test_retraining_is_reproducible_and_says_when_it_was_measured_on_its_training_data() -> None:
    model, loader = make_mlp(torch.float32), make_loader()
    mask = create_magnitude_mask(model, 0.5)
    first, second = (
        compute_lottery_ticket_quality(model, mask, loader, trainer_fn=train, controls=["shuffled"]) for _ in range(2)
    )
    assert first["retrained"] is not None
    assert first == second
    assert first["retrained"]["split"] == "train"
    assert "train_accuracy" in first["retrained"]["trainings"][0]["history"]["end"]
    other = compute_lottery_ticket_quality(model, mask, loader, trainer_fn=train, controls=["shuffled"], seed=1)
    assert other["retrained"] != first["retrained"]


def test_retraining_in_a_run_folder_goes_on_grows_and_verifies(tmp_path: Path) -> None:
    model, loader, test = make_mlp(torch.float32), make_loader(), make_data()
    mask, calls = create_magnitude_mask(model, 0.5), [0]

    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        calls[0] += 1
        train(model, dataloader, epochs=epochs)
        if calls[0] == 3:
            raise KeyboardInterrupt("in mid-training")

    def retrain(folder: Path | None, num_replicates: int, ticket: Mask = mask) -> dict[str, Any]:
        quality = compute_lottery_ticket_quality(
            model, ticket, test, trainer_fn=trainer, train_dataloader=loader, num_replicates=num_replicates,
            run_folder=folder,
        )  # fmt: skip
        assert quality["retrained"] is not None
        return quality["retrained"]

    before, run = take_traces(model), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="in mid-training"):
        retrain(run, 1)
    assert take_traces(model) == before
    retrain(run, 1)
    assert calls[0] == 6, "two of five trainings were there"
    found = retrain(run, 2)
    assert calls[0] == 11
    assert found["trainings"] == retrain(None, 2)["trainings"]
    assert (found["looks"], found["run_folder"]) == ([1, 2], str(run))
    assert [check for check in verify_run(run) if check.problem] == []
    with pytest.raises(ValueError, match="these differ: ticket_sha256"):
        retrain(run, 2, create_magnitude_mask(model, 0.6))


def test_a_control_that_is_added_later_brings_no_other_with_it(tmp_path: Path) -> None:
    model, loader, test = make_mlp(torch.float32), make_loader(), make_data()
    asked: tuple[list[Branch], ...] = ([], ["random"])
    for controls in asked:
        quality = compute_lottery_ticket_quality(
            model, create_magnitude_mask(model, 0.5), test, trainer_fn=train, train_dataloader=loader,
            controls=controls, run_folder=tmp_path,
        )  # fmt: skip
        assert quality["retrained"] is not None
        rows = quality["retrained"]["trainings"]
        assert [row["branch"] for row in rows] == ["ticket", "ticket", *controls]


def test_a_trainer_that_fails_or_moves_everything_leaves_the_model_as_it_was() -> None:
    model, data = nn.Sequential(make_mlp(torch.float32), nn.BatchNorm1d(3)), make_loader()
    model[0].eval()
    model.get_parameter("0.0.weight").grad = torch.randn(7, 5)
    model.get_parameter("0.2.bias").requires_grad_(False)
    calls = []

    def fail_late(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        train(model, dataloader, epochs=epochs)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        calls.append(1)
        if len(calls) == 4:
            raise OSError("no space left")

    before = take_traces(model)
    with pytest.raises(OSError, match="no space left"):
        compute_lottery_ticket_quality(model, create_magnitude_mask(model, 0.5), data, trainer_fn=fail_late)
    assert take_traces(model) == before
    compute_lottery_ticket_quality(model, create_magnitude_mask(model, 0.5), data, trainer_fn=train)
    assert take_traces(model) == before


def test_a_returned_model_is_taken_over() -> None:
    def trainer(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        other = copy.deepcopy(model)
        train(other, dataloader, epochs=epochs)
        return other

    model, data = make_mlp(torch.float32), make_loader()
    mask = create_magnitude_mask(model, 0.5)
    in_place, returned = (
        compute_lottery_ticket_quality(model, mask, data, trainer_fn=function, controls=[])["retrained"]
        for function in (train, trainer)
    )
    assert in_place == returned


def test_replicates_that_repeat_each_other_are_refused() -> None:
    model, data = make_mlp(torch.float32), make_data()  # a list: always in one order
    with pytest.raises(
        ValueError, match="replicates must differ, but the dense network ended with the same bits twice"
    ):
        compute_lottery_ticket_quality(
            model, create_magnitude_mask(model, 0.5), data, trainer_fn=train, num_replicates=2
        )


def test_bad_input() -> None:
    model, data = make_mlp(torch.float32), make_data()
    mask = create_magnitude_mask(model, 0.5)
    with pytest.raises(ValueError, match="mask names 'other', but the model has no such parameter"):
        compute_lottery_ticket_quality(model, {"other": torch.ones(2)}, data)
    with pytest.raises(ValueError, match="num_epochs must come with a trainer_fn"):
        compute_lottery_ticket_quality(model, mask, data, num_epochs=3)
    with pytest.raises(ValueError, match="controls must be among reinitialised, shuffled, random, got"):
        compute_lottery_ticket_quality(model, mask, data, trainer_fn=train, controls=["zero"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="num_replicates must be an integer of at least 1, got 0"):
        compute_lottery_ticket_quality(model, mask, data, trainer_fn=train, num_replicates=0)
    with pytest.raises(ValueError, match="starting_weights must be a state of this model"):
        compute_lottery_ticket_quality(model, mask, data, trainer_fn=train, starting_weights={})
    with pytest.raises(TypeError, match="trainer_fn must be a function of model, dataloader and epochs, got 3"):
        compute_lottery_ticket_quality(model, mask, data, trainer_fn=3)  # type: ignore[arg-type]
    hold_mask(model, mask)
    with pytest.raises(ValueError, match="the model must hold no mask"):
        compute_lottery_ticket_quality(model, mask, data, trainer_fn=train)
    diverged = make_mlp(torch.float32)
    with torch.no_grad():
        diverged.get_parameter("0.bias").fill_(torch.nan)
    with pytest.raises(ValueError, match="the model's own loss must be finite"):
        compute_lottery_ticket_quality(diverged, mask, data)


def test_a_training_that_diverges_is_an_error_that_names_the_branch() -> None:
    def diverge(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:  # noqa: ARG001 - a trainer's signature
        with torch.no_grad():
            next(model.parameters()).fill_(torch.inf)

    model, data = make_mlp(torch.float32), make_data()
    with pytest.raises(
        ValueError, match=r"the loss must be finite.*\nin replicate-0/level-00-ticket, the dense network"
    ):
        compute_lottery_ticket_quality(model, create_magnitude_mask(model, 0.5), data, trainer_fn=diverge)

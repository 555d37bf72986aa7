"""The line between two networks is known, trained copies differ in data order alone, and nothing is left behind."""

import copy
import itertools
import json
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets import (
    compute_linear_connectivity,
    create_magnitude_mask,
    hold_mask,
    save_results,
)
from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.states import copy_state, hash_state
from tests.data import make_tokens, split_tokens
from tests.lottery_tickets.connectivity.networks import (
    SIZES,
    Model,
    describe_everything,
    make_dataset,
    make_loader,
    make_network,
    train,
)
from tests.models import make_convolutions, make_language_model

# ---------------------------------------------------------------------------------------------------------- known paths


def test_flipped_classifiers_have_a_known_path() -> None:
    """At the middle all logits are zero: the loss is log 2 there, and at each alpha what one line of algebra says."""
    model = nn.Linear(1, 2, bias=False)
    data = [(torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([0, 0, 1]))]
    first, second = ({"weight": torch.tensor([[sign], [-sign]])} for sign in (1.0, -1.0))
    found = compute_linear_connectivity(model, data, first, second, num_points=31)
    pair = found["pairs"][0]
    for alpha, error, loss in zip(pair["alphas"], pair["errors"] or [], pair["losses"], strict=True):
        margins = [2 * x * (1 - 2 * alpha) for x in (1, 2, 1)]
        assert loss == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 3, rel=1e-5)
        if alpha != 0.5:  # where all logits are equal
            assert error == (0.0 if alpha < 0.5 else 1.0)
    assert (pair["first"]["accuracy"], pair["second"]["accuracy"]) == (1.0, 0.0)
    assert (found["instability"], found["stable"]) == (0.5, False)  # 1 minus the mean of 0 and 1
    losses = [loss for loss in pair["losses"] if loss is not None]
    ends = pair["first"]["loss"], pair["second"]["loss"]
    assert found["barrier"] == pytest.approx(max(losses) - sum(ends) / 2)
    assert found["barrier_over_line"] == 0  # the loss is convex in alpha, so it lies below the straight line


def test_permuted_hidden_units_give_a_barrier_though_the_functions_are_one() -> None:
    model, order = make_network(), torch.arange(SIZES[1]).roll(1)
    train(model, make_dataset_batches(), epochs=60)
    first = copy_state(model)
    second = {"0.weight": first["0.weight"][order], "0.bias": first["0.bias"][order],
              "2.weight": first["2.weight"][:, order], "2.bias": first["2.bias"]}  # fmt: skip
    pair = compute_linear_connectivity(model, make_dataset_batches(), first, second)["pairs"][0]
    assert pair["first"]["loss"] == pytest.approx(pair["second"]["loss"], rel=1e-5)
    assert pair["first"]["accuracy"] == pair["second"]["accuracy"]
    assert pair["instability"] is not None
    assert pair["instability"] > 0.05
    assert pair["stable"] is False
    assert pair["barrier"] is not None
    assert pair["barrier"] > 0.1


def make_dataset_batches() -> list[tuple[Tensor, Tensor]]:
    inputs, targets = make_dataset().tensors
    return list(zip(inputs.split(10), targets.split(10), strict=True))


@pytest.mark.parametrize("make", [make_network, make_convolutions])
def test_equal_ends_are_exactly_stable(make: Callable[[], nn.Module]) -> None:
    model = make()
    shape, dtype = ((6, 4), torch.float32) if make is make_network else ((6, 2, 4, 4), torch.float64)
    data = [(torch.randn(shape, dtype=dtype), torch.randint(3, (6,)))]
    state = copy_state(make())
    found = compute_linear_connectivity(model, data, state, state)
    assert (found["instability"], found["barrier"], found["barrier_over_line"]) == (0.0, 0.0, 0.0)
    assert found["stable"]
    assert found["settings"]["recomputed_statistics"] is (make is make_convolutions)


def test_swapping_the_ends_mirrors_the_path() -> None:
    model, data = make_network(), make_dataset_batches()
    first, second = copy_state(make_network(1)), copy_state(make_network(2))
    there = compute_linear_connectivity(model, data, first, second, num_points=9)
    back = compute_linear_connectivity(model, data, second, first, num_points=9)
    assert there["pairs"][0]["losses"] == pytest.approx(list(reversed(back["pairs"][0]["losses"])), rel=1e-5)
    for name in ("instability", "barrier", "barrier_over_line"):
        assert there[name] == pytest.approx(back[name], abs=1e-6)
    assert there["pairs"][0]["first"] == back["pairs"][0]["second"]


def test_overflow_on_the_path_is_counted_and_json_able(tmp_path: Path) -> None:
    model = nn.Linear(1, 2, bias=False)
    data = [(torch.ones(1, 1), torch.tensor([0]))]
    states = [{"weight": torch.tensor([[value], [0.0]])} for value in (-1.0, 2.0)]

    def explode(inner: Model, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        loss = functional.cross_entropy(inner(batch[0]), batch[1])
        return loss * torch.where(inner(batch[0])[0, 0].abs() < 0.5, torch.inf, 1)

    found = compute_linear_connectivity(model, data, *states, loss_fn=explode)
    pair = found["pairs"][0]
    assert pair["num_nonfinite"] == pair["losses"].count(None) == 10
    assert (found["barrier"], found["instability"]) == (None, 0.5)
    assert pair["errors"] is not None
    assert pair["errors"].count(None) == 10
    save_results(found, tmp_path / "found.json")
    json.dumps(found, allow_nan=False)


def test_a_loss_of_the_callers_has_a_barrier_only() -> None:
    model, data = make_network(), make_dataset_batches()
    states = copy_state(make_network(1)), copy_state(make_network(2))

    def loss_fn(inner: Model, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        loss: Tensor = inner(batch[0]).pow(2).mean()
        return loss

    found = compute_linear_connectivity(model, data, *states, loss_fn=loss_fn)
    assert (found["instability"], found["stable"], found["pairs"][0]["errors"]) == (None, None, None)
    assert found["barrier"] is not None
    with_metric = compute_linear_connectivity(model, data, *states, loss_fn=loss_fn, metric=lambda _model, _data: 0.75)
    assert with_metric["pairs"][0]["errors"] == [0.25] * 30
    assert with_metric["stable"]
    with pytest.raises(ValueError, match="the accuracy that metric returns must be from 0 to 1, got 75"):
        compute_linear_connectivity(model, data, *states, metric=lambda _model, _data: 75.0)


def test_language_models_are_judged_by_their_next_tokens() -> None:
    model, data = make_language_model("GPT2"), split_tokens(make_tokens(), 4)
    found = compute_linear_connectivity(model, data, copy_state(model), copy_state(model), num_points=3)
    tokens = make_tokens()
    with torch.no_grad():
        predicted, labels = model.eval()(tokens["input_ids"]).logits[:, :-1].argmax(-1), tokens["labels"][:, 1:]
    right = float((predicted == labels)[labels != -100].double().mean())
    assert found["pairs"][0]["first"]["accuracy"] == pytest.approx(right)


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("seed", [None, 3])
def test_copies_differ_in_data_order_alone(seed: int | None) -> None:
    """With a loader that draws from the global generators, or from its own."""
    starts, orders = [], []

    def watched(model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
        starts.append(hash_state(copy_state(model)))
        seen = [inputs.clone() for inputs, _ in dataloader]
        orders.append(torch.cat(seen))
        train(model, dataloader, epochs=epochs)

    model = make_network()
    found = compute_linear_connectivity(
        model, make_loader(seed), trainer_fn=watched, num_epochs=2, num_replicates=2, num_points=5
    )
    assert set(starts) == {hash_state(copy_state(model))} == {pair["start_sha256"] for pair in found["pairs"]}
    assert len(orders) == 4
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    assert all(torch.equal(a.sort(0).values, orders[0].sort(0).values) for a in orders)
    assert len(found["instabilities"]) == 2
    assert found["instability"] == pytest.approx(sum(x for x in found["instabilities"] if x is not None) / 2)
    assert found["settings"]["trained"]
    again = compute_linear_connectivity(
        model, make_loader(seed), trainer_fn=watched, num_epochs=2, num_replicates=2, num_points=5
    )
    assert again == found


def test_a_pair_is_what_training_by_hand_gives() -> None:
    model, loader = make_network(), make_loader(7)
    mask = create_magnitude_mask(model, 0.5)
    options: dict[str, Any] = {"num_epochs": 3, "num_points": 7}
    found = compute_linear_connectivity(model, loader, trainer_fn=train, rewind_epoch=1, mask=mask, **options)
    seeds = found["pairs"][0]["seeds"]
    assert seeds is not None
    shared = copy.deepcopy(model)
    with ordered_by(loader, seeds["shared"]):
        train(shared, loader, epochs=1)
    hold_mask(shared, mask)
    ends = []
    for name in ("first", "second"):
        trained = copy.deepcopy(shared)
        with ordered_by(loader, seeds[name]):
            train(trained, loader, epochs=2)
        ends.append(copy_state(trained))
    by_hand = compute_linear_connectivity(model, loader, *ends, num_points=7)
    assert by_hand["instabilities"] == found["instabilities"]
    assert by_hand["pairs"][0]["losses"] == found["pairs"][0]["losses"]
    assert found["settings"]["sparsity"] == 0.5


def test_the_mask_is_held_while_copies_train_and_not_before() -> None:
    model = make_network()
    mask = create_magnitude_mask(model, 0.5)
    num_pruned = []

    def watched(model: Model, dataloader: Iterable[Any], *, epochs: int) -> Model:
        train(model, dataloader, epochs=epochs)
        num_pruned.append(sum(int((p == 0).sum()) for p in model.parameters()))
        return copy.deepcopy(model)

    found = compute_linear_connectivity(
        model, make_loader(), trainer_fn=watched, num_epochs=2, rewind_epoch=1, mask=mask, num_points=3
    )
    assert num_pruned == [0, mask.num_weights - mask.num_kept, mask.num_weights - mask.num_kept]
    assert found["pairs"][0]["start_sha256"] != hash_state(copy_state(model))


def idle(model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
    assert epochs
    model.train()
    assert dataloader


def test_data_without_an_order_to_vary_is_refused() -> None:
    """Both copies would be one, and an instability of 0 would be a lie."""
    model = make_network()
    with (
        pytest.warns(UserWarning, match="two seeds give the same batches; pass a loader with shuffle=True"),
        pytest.raises(ValueError, match="ended bit for bit alike, which would pass for perfect stability"),
    ):
        compute_linear_connectivity(model, make_dataset_batches(), trainer_fn=train, num_epochs=1)
    with pytest.raises(ValueError, match="must train the model it is given, or return another"):
        compute_linear_connectivity(model, make_loader(), trainer_fn=idle, num_epochs=1)


def test_a_trainer_may_shuffle_by_itself() -> None:
    def shuffle(model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
        batches = list(dataloader)
        random.shuffle(batches)
        train(model, batches, epochs=epochs)

    with pytest.warns(UserWarning, match="unless the trainer shuffles by itself"):
        found = compute_linear_connectivity(
            make_network(), make_dataset_batches(), trainer_fn=shuffle, num_epochs=1, num_points=3
        )
    assert found["barrier"] is not None


# --------------------------------------------------------------------------------------------------------- nothing left


class CallerError(Exception):
    """What a caller's code may raise."""


def fail_in_training(model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
    train(model, dataloader, epochs=epochs)
    if torch.rand(()) < 2:  # and so draws from the generators
        raise CallerError("as asked")


class FailingLinear(nn.Linear):
    """Refuses to be evaluated."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            raise CallerError("as asked")
        return super().forward(inputs)


def fail_in_loss(model: Model, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
    if not model.training:
        raise CallerError("as asked")
    return functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("fails_in", ["nothing", "trainer", "model", "loss"])
def test_the_model_comes_back_bit_for_bit(fails_in: str) -> None:
    torch.manual_seed(0)
    last = FailingLinear(16, 3) if fails_in == "model" else nn.Linear(16, 3)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), last)
    model[1].eval()
    model[0].bias.requires_grad_(False)
    calls = []
    model[3].register_forward_hook(lambda *_: calls.append(1))
    loader = make_loader(3)
    functional.cross_entropy(model(next(iter(loader))[0]), torch.zeros(10, dtype=torch.long)).backward()
    before = describe_everything(model, loader)
    options: dict[str, Any] = {
        "trainer_fn": fail_in_training if fails_in == "trainer" else train,
        "loss_fn": fail_in_loss if fails_in == "loss" else None,
        "mask": create_magnitude_mask(model, 0.5),
    }
    if fails_in == "nothing":
        compute_linear_connectivity(model, loader, num_epochs=2, rewind_epoch=1, num_points=3, **options)
    else:
        with pytest.raises(CallerError, match="as asked"):
            compute_linear_connectivity(model, loader, num_epochs=2, rewind_epoch=1, num_points=3, **options)
    assert describe_everything(model, loader) == before
    train(model, loader, epochs=1)
    assert not any(bool((p == 0).all()) for p in model.parameters())


# ------------------------------------------------------------------------------------------------------------ bad input


def test_wrong_arguments_are_refused() -> None:
    model, data, loader = make_network(), make_dataset_batches(), make_loader()
    state = copy_state(model)
    with pytest.raises(ValueError, match="there must be two states, first and second, or a trainer_fn"):
        compute_linear_connectivity(model, data, state)
    with pytest.raises(ValueError, match="trainer_fn, which alone goes with mask"):
        compute_linear_connectivity(model, data, state, state, num_replicates=3)
    with pytest.raises(ValueError, match="trainer_fn, which alone goes with mask, rewind_epoch"):
        compute_linear_connectivity(model, data, state, state, train_dataloader=loader)
    with pytest.raises(ValueError, match="there must be no first and second"):
        compute_linear_connectivity(model, loader, state, state, trainer_fn=train)
    with pytest.raises(TypeError, match="first must be a state dict of tensors by name, got a Sequential"):
        compute_linear_connectivity(model, data, model, state)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ValueError, match="num_points must be an integer of at least 3"):
        compute_linear_connectivity(model, data, state, state, num_points=2)
    with pytest.raises(ValueError, match="threshold must be from 0 to 1, got 2"):
        compute_linear_connectivity(model, data, state, state, threshold=2)
    with pytest.raises(TypeError, match="threshold must be a number"):
        compute_linear_connectivity(model, data, state, state, threshold="2 %")  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(TypeError, match="is used up after one"):
        compute_linear_connectivity(model, iter(data), state, state)
    with pytest.raises(TypeError, match="metric must be"):
        compute_linear_connectivity(model, data, state, state, metric=3)  # type: ignore[arg-type] # wrong on purpose
    for name, value in (("num_epochs", 0), ("num_replicates", 0), ("rewind_epoch", 10), ("rewind_epoch", -1)):
        options: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"{name} must be"):
            compute_linear_connectivity(model, loader, trainer_fn=train, **options)
    with pytest.raises(TypeError, match="trainer_fn must be a function"):
        compute_linear_connectivity(model, loader, trainer_fn=3)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ValueError, match=r"mask names 'fc\.weight'"):
        compute_linear_connectivity(model, loader, trainer_fn=train, mask={"fc.weight": torch.ones(2, 2)})
    with pytest.raises(TypeError, match="is used up after one"):
        compute_linear_connectivity(model, data, trainer_fn=train, train_dataloader=iter(data))

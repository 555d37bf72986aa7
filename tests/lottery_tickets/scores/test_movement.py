"""Movement beside a loop that sums -gradient * weight by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import optimizer as torch_optimizer

from lottery_tickets import (
    compute_magnitude_importance,
    create_importance_mask,
    hold_mask,
    record_movement,
)
from tests.data import assert_close, make_data, split, train
from tests.models import MLP_WEIGHTS, make_mlp


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    ],
    ids=["SGD", "AdamW", "fused"],
)
def test_movement_sums_minus_gradient_times_weight(make_optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
    model, data = make_mlp(), make_data()
    twin = copy.deepcopy(model)
    expected = {name: torch.zeros_like(w) for name, w in twin.named_parameters() if w.ndim > 1}
    optimizer = make_optimizer(twin.parameters())
    for inputs, targets in split(data, 3):
        optimizer.zero_grad()
        functional.cross_entropy(twin(inputs), targets).backward()
        for name, total in expected.items():
            weight = twin.get_parameter(name)
            assert weight.grad is not None
            total.sub_(weight.grad * weight.detach())
        optimizer.step()
    optimizer = make_optimizer(model.parameters())
    with record_movement(model) as movement:
        train(model, optimizer, split(data, 3)[:2])
        early = movement.importance()
        early_values = {name: score.clone() for name, score in early.items()}
        train(model, optimizer, split(data, 3)[2:])
        during = movement.importance()
    assert_close(movement.importance(), expected)
    assert_close(during, expected)
    assert_close(early, early_values, rtol=0)
    assert dict(during.report)["num_steps"] == 4
    train(model, optimizer, [data])
    assert_close(movement.importance(), expected)
    for trained, wanted in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert not torch.equal(trained, wanted), "the step after the block is made, and not recorded"
    mask = create_importance_mask(movement.importance(), 0.5)
    kept = torch.cat([score[mask[name]] for name, score in during.items()])
    gone = torch.cat([score[~mask[name]] for name, score in during.items()])
    assert float(kept.min()) >= float(gone.max())
    assert float(gone.min()) < 0 < float(kept.max())


def test_movement_counts_a_step_once_however_many_backward_passes_it_has() -> None:
    model, data = make_mlp(), make_data()
    once, often = copy.deepcopy(model), model
    results = []
    for module, size in ((once, 12), (often, 4)):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        with record_movement(module) as movement:
            for _ in range(3):
                optimizer.zero_grad()
                for inputs, targets in split(data, size):
                    (functional.cross_entropy(module(inputs), targets) * size / 12).backward()
                optimizer.step()
        results.append(movement.importance())
    assert_close(results[0], {name: score.double() for name, score in results[1].items()})


@pytest.mark.parametrize("keyword", [True, False])
@pytest.mark.parametrize("kind", ["SGD", "LBFGS"])
def test_movement_sees_the_gradients_of_closures(kind: str, keyword: bool) -> None:
    """The gradients of the first evaluation, at the weights before the step; not those that lay there before."""
    model, (inputs, targets) = make_mlp(), make_data()
    expected = {}
    for name in MLP_WEIGHTS:
        weight = model.get_parameter(name)
        [gradient] = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), weight)
        expected[name] = -gradient * weight.detach()
        weight.grad = torch.full_like(weight, 1e6)
    optimizer: Any = getattr(torch.optim, kind)(model.parameters(), lr=0.1)
    num_calls = 0

    def closure() -> Tensor:
        nonlocal num_calls
        num_calls += 1
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    with record_movement(model) as movement:
        loss = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
    assert float(loss.detach()) > 0
    assert num_calls > 1 or kind == "SGD"
    assert_close(movement.importance(), expected)
    assert dict(movement.importance().report)["num_steps"] == 1


@pytest.mark.parametrize("fused", [True, False])
def test_movement_under_a_gradient_scaler_sees_gradients_without_the_scale(fused: bool) -> None:
    model, (inputs, targets) = make_mlp(torch.float32), make_data(torch.float32)
    weight = model.get_parameter("0.weight")
    [gradient] = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), weight)
    expected = {"0.weight": -gradient * weight.detach()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with record_movement(model, include="0") as movement:
        for factor in (1.0, float("inf")):  # the second step overflows, and is skipped
            optimizer.zero_grad()
            scaler.scale(functional.cross_entropy(model(inputs), targets) * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    assert_close(movement.importance(), expected)


def test_movement_takes_several_optimizers_sparse_gradients_and_frozen_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 3), nn.Linear(3, 3))
    model[2].requires_grad_(requires_grad=False)
    optimizers = [torch.optim.SGD([p], lr=0.1) for p in model.parameters() if p.requires_grad]
    table = model.get_parameter("0.weight")
    before = table.detach().clone()
    with record_movement(model, include=["0", "1.weight", "2.weight"]) as movement:
        functional.cross_entropy(model(torch.tensor([1, 1, 3])), torch.tensor([0, 1, 2])).backward()
        assert table.grad is not None
        gradient = table.grad.to_dense().clone()
        for optimizer in optimizers:
            optimizer.step()
    scores = movement.importance()
    assert_close({"0.weight": scores["0.weight"]}, {"0.weight": -gradient * before})
    assert bool(scores["1.weight"].any())
    assert not scores["2.weight"].any()
    assert dict(scores.report)["num_still_weights"] == 9
    assert dict(scores.report)["num_steps"] == 2, "of three optimizers two stepped a recorded weight"


def test_movement_leaves_no_hook_behind() -> None:
    hooks = torch_optimizer._global_optimizer_pre_hooks
    before = dict(hooks)
    model = make_mlp()
    with record_movement(model), record_movement(model):
        assert len(hooks) == len(before) + 2
    assert dict(hooks) == before

    def fail() -> None:
        with record_movement(model):
            raise KeyError("diverged")

    with pytest.raises(KeyError, match="diverged"):
        fail()
    assert dict(hooks) == before
    with pytest.raises(ValueError, match="include must match a parameter"), record_movement(model, include="nothing"):
        pass
    assert dict(hooks) == before


def test_movement_without_steps_or_with_nan_is_refused() -> None:
    model, (inputs, targets) = make_mlp(), make_data()
    other = make_mlp()
    with record_movement(model) as movement:
        train(other, torch.optim.SGD(other.parameters(), lr=0.1), [(inputs, targets)])
    with pytest.raises(ValueError, match=r"no torch\.optim optimizer stepped these weights"):
        movement.importance()
    with record_movement(model) as movement:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), [(inputs * float("nan"), targets)])
    with pytest.raises(ValueError, match=r"movement must be finite, but '0\.weight'"):
        movement.importance()
    with pytest.raises(TypeError, match="got dict"), record_movement({}):  # type: ignore[arg-type]
        pass


def test_movement_of_held_weights_is_zero_where_pruned() -> None:
    model, data = make_mlp(), make_data()
    mask = create_importance_mask(compute_magnitude_importance(model), 0.5)
    hold_mask(model, mask)
    with record_movement(model) as movement:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), split(data, 4))
    for name, score in movement.importance().items():
        assert not score[~mask[name]].any()
        assert bool(score[mask[name]].any())

"""What all scores of the literature promise."""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import optimizer as torch_optimizer

from lottery_tickets import (
    Importance,
    compute_grasp_importance,
    compute_snip_importance,
    compute_synflow_importance,
    compute_wanda_importance,
    create_importance_mask,
    record_movement,
)
from tests.data import assert_close, make_data, split, train
from tests.lottery_tickets.scores.hessian import grasp_by_hessian
from tests.models import MLP_WEIGHTS, Shared, make_mlp


def snip(model: nn.Module, loader: Iterable[Any], **options: Any) -> Importance:  # noqa: ANN401 - as the score's
    return compute_snip_importance(model, loader, **options)


def grasp(model: nn.Module, loader: Iterable[Any], **options: Any) -> Importance:  # noqa: ANN401 - as the score's
    return compute_grasp_importance(model, loader, **options)


def wanda(model: nn.Module, loader: Iterable[Any], **options: Any) -> Importance:  # noqa: ANN401 - as the score's
    return compute_wanda_importance(model, loader, **options)


def synflow(model: nn.Module, loader: Iterable[Any], **options: Any) -> Importance:  # noqa: ANN401 - as the score's
    return compute_synflow_importance(model, next(iter(loader)), 0.5, 3, **options)


SCORES: Final[dict[str, Callable[..., Importance]]] = {"snip": snip, "grasp": grasp, "wanda": wanda, "synflow": synflow}

WITH_DATA: Final = ["snip", "grasp", "wanda"]


class _Restless(nn.Module):
    """Draws numbers, counts calls in a buffer, and fails at a given call."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.seen = Counter[str]()  # a thing of its own, because numbers are put back after measuring
        self.linear = nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen["calls"] += 1
        self.calls += 1
        random.random()  # noqa: S311 - no secret
        np.random.rand()  # noqa: NPY002 - callers' code may use it
        if self.seen["calls"] == self.fails_at:
            raise RuntimeError("out of cheese")
        output: Tensor = self.head(self.norm(self.drop(self.linear(inputs)))) + 0 * torch.rand(3)
        return output


def describe(model: nn.Module) -> list[object]:
    """All that must stay as it was, to the bit; not Python's generator, from which the tests' type checker draws."""
    state = [
        (name, id(t), t.data_ptr(), t.detach().view(torch.uint8).tolist() if t.ndim else t.tolist())
        for name, t in model.state_dict(keep_vars=True).items()
    ]
    modes = [
        (module.training, dict(module._forward_hooks), dict(module._forward_pre_hooks)) for module in model.modules()
    ]
    parameters = [(p.requires_grad, p.grad, p._backward_hooks, dict(vars(p))) for p in model.parameters()]
    chance = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index] # noqa: NPY002 - callers' code may use it
    hooks = [dict(torch_optimizer._global_optimizer_pre_hooks), torch.is_grad_enabled()]
    return [state, modes, parameters, chance, hooks]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_models_come_back_bit_for_bit(score: str, fails_at: int) -> None:
    model = _Restless(fails_at).train()
    model.norm.eval()
    model.linear.requires_grad_(requires_grad=False)
    before = describe(model)
    loader = split(make_data(torch.float32), 6)
    if fails_at:
        with pytest.raises(RuntimeError, match="out of cheese"):
            SCORES[score](model, loader)
    else:
        SCORES[score](model, loader)
        assert model.seen["calls"] > 1
    assert describe(model) == before


@pytest.mark.parametrize("score", SCORES)
def test_frozen_weights_are_scored_like_others(score: str) -> None:
    model, data = make_mlp(), make_data()
    expected = SCORES[score](model, [data])
    model.requires_grad_(requires_grad=False)
    assert_close(SCORES[score](model, [data]), expected, rtol=1e-12)
    with torch.no_grad():
        assert_close(SCORES[score](model, [data]), expected, rtol=1e-12)
    with torch.inference_mode():
        assert_close(SCORES[score](model, [data]), expected, rtol=1e-12)


def test_a_tied_weight_is_scored_by_all_its_uses() -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = Shared().double(), make_data()
    names = ["first.weight", "head.weight"]
    found = compute_grasp_importance(model, [(inputs, targets)])
    expected = grasp_by_hessian(model, names, lambda module: functional.cross_entropy(module(inputs) / 200, targets))
    assert_close(found, expected)
    stacked = torch.cat([inputs, model.first(inputs).tanh()])
    wanda_score = compute_wanda_importance(model, [inputs])["first.weight"]
    assert_close({"w": wanda_score}, {"w": model.first.weight.abs() * stacked.norm(dim=0)})
    [gradient] = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), model.first.weight)
    ratio = (
        compute_snip_importance(model, [(inputs, targets)])["first.weight"].double()
        / (gradient * model.first.weight).abs()
    )
    torch.testing.assert_close(ratio, ratio[:1, :1].expand(5, 5))
    assert list(compute_synflow_importance(model, (5,), 0.5)) == names
    with record_movement(model) as movement:
        train(model, torch.optim.SGD(model.parameters(), lr=0.0), [(inputs, targets)])
    assert_close({"w": movement.importance()["first.weight"]}, {"w": -gradient * model.first.weight})


@pytest.mark.parametrize("score", SCORES)
def test_bfloat16_models_give_float32_scores_near_those_of_float32(score: str) -> None:
    model, data = make_mlp(torch.bfloat16), make_data(torch.bfloat16)
    wide = copy.deepcopy(model).float()
    found = SCORES[score](model, [data])
    expected = SCORES[score](wide, [(data[0].float(), data[1])])
    for name, values in found.items():
        assert values.dtype == torch.float32
        distance = float((values - expected[name]).norm() / expected[name].norm())
        assert distance < 0.1, f"{name} is off by {distance}"


def test_movement_of_a_bfloat16_model_is_summed_in_float32() -> None:
    model = nn.Linear(2, 1, bias=False).bfloat16()
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with record_movement(model) as movement:
        for _ in range(1000):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
    assert movement.importance()["weight"].tolist() == [[-1000.0, -1000.0]], "a bfloat16 sum stops at 256"


def endless(batch: object) -> Iterator[object]:
    while True:
        yield batch


@pytest.mark.parametrize("score", WITH_DATA)
def test_num_samples_is_a_limit(score: str) -> None:
    model, (inputs, targets) = make_mlp(), make_data()
    expected = SCORES[score](model, [(inputs[:7], targets[:7])])
    found = SCORES[score](model, split((inputs, targets), 5), num_samples=7)
    assert_close(found, {name: value.double() for name, value in expected.items()})
    assert found.report.get("num_samples") == 7
    assert SCORES[score](model, endless((inputs, targets)), num_samples=40).report.get("num_samples") == 40


@pytest.mark.parametrize("score", WITH_DATA)
def test_wrong_arguments_are_refused(score: str) -> None:
    model, data = make_mlp(), make_data()
    with pytest.raises(ValueError, match="at least one sample, but gave none"):
        SCORES[score](model, [])
    with pytest.raises(ValueError, match=r"num_samples must be an integer of at least 1.*got 0"):
        SCORES[score](model, [data], num_samples=0)
    with pytest.raises(TypeError, match=r"num_samples must be an integer of at least 1.*got 1\.5"):
        SCORES[score](model, [data], num_samples=1.5)
    with pytest.raises(ValueError, match="include must match a parameter, but 'x'"):
        SCORES[score](model, [data], include="x")
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, .*got dict"):
        SCORES[score](dict(model.named_parameters()), [data])
    assert list(SCORES[score](model, [data], exclude="2")) == ["0.weight", "4.weight"]


NAN_ERRORS: Final = {
    "snip": "gradients that are not finite.* look for NaN",
    "grasp": "loss of each batch must be finite, got nan; look for NaN",
    "wanda": "scores must be finite, .* look for NaN",
}


@pytest.mark.parametrize("score", WITH_DATA)
def test_nan_in_the_data_is_not_ranked(score: str) -> None:
    inputs, targets = make_data()
    with pytest.raises(ValueError, match=NAN_ERRORS[score]):
        SCORES[score](make_mlp(), [(inputs * float("nan"), targets)])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_are_positive_numbers(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        compute_grasp_importance(make_mlp(), [make_data()], temperature=temperature)


@pytest.mark.parametrize("score", SCORES)
def test_reports_say_how_scores_were_found(score: str) -> None:
    found = SCORES[score](make_mlp(), [make_data()])
    assert found.report.get("score")
    assert str(found.report.get("mode")).startswith("evaluation")
    assert found.output_dims == dict.fromkeys(MLP_WEIGHTS, (0,))
    assert create_importance_mask(found, 0.5).num_kept == 47, "of 95 weights round(47.5) go, which is 48"

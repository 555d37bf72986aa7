"""SNIP and GraSP beside slow obvious second implementations; and what all scores of the literature promise."""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    compute_magnitude_importance,
    compute_snip_importance,
    compute_synflow_importance,
    compute_taylor_importance,
    compute_wanda_importance,
    create_importance_mask,
    record_movement,
)
from tests.scored_models import (
    MLP_WEIGHTS,
    assert_close,
    make_data,
    make_language_model,
    make_mlp,
    make_tokens,
    split,
    split_tokens,
    train,
    weights_of,
)

# ----------------------------------------------------------------------------------------------------------------- SNIP


def test_snip_is_the_derivative_by_a_factor_before_each_weight() -> None:
    model, data = make_mlp(), make_data()
    factors = {name: torch.ones_like(w).requires_grad_() for name, w in model.named_parameters() if w.ndim == 2}
    scaled = {name: model.get_parameter(name).detach() * factor for name, factor in factors.items()}
    loss = functional.cross_entropy(torch.func.functional_call(model, scaled, data[0]), data[1])
    loss.backward()
    sizes = {name: factor.grad.abs() for name, factor in factors.items() if factor.grad is not None}
    total = sum(float(size.sum()) for size in sizes.values())
    expected = {name: size / total for name, size in sizes.items()}
    for size in (1, 5, 12):
        assert_close(compute_snip_importance(model, split(data, size)), expected)
    assert sum(float(score.sum()) for score in expected.values()) == pytest.approx(1)


def test_snip_lets_samples_cancel_where_taylor_does_not() -> None:
    model = nn.Linear(1, 1, bias=False)
    data = torch.tensor([[1.0], [-1.0 + 1e-3]])

    def mean_output(module: nn.Module, batch: Tensor) -> Tensor:
        output: Tensor = module(batch).mean()
        return output

    fixed = {"a": model, "b": nn.Linear(1, 1, bias=False)}
    both = nn.ModuleDict(fixed)

    def loss_fn(module: nn.Module, batch: Tensor) -> Tensor:
        assert isinstance(module, nn.ModuleDict)
        return mean_output(module["a"], batch) + 0.01 * mean_output(module["b"], batch.abs())

    with torch.no_grad():
        for layer in fixed.values():
            layer.weight.fill_(1.0)
    snip = compute_snip_importance(both, [data], loss_fn=loss_fn)
    taylor = compute_taylor_importance(both, [data], loss_fn=loss_fn)
    assert float(snip["a.weight"]) < float(snip["b.weight"])
    assert float(taylor["a.weight"]) > float(taylor["b.weight"])


def test_snip_of_a_language_model_averages_over_sequences() -> None:
    model, tokens = make_language_model("Llama"), make_tokens()
    model.eval()
    sums: dict[str, Tensor] = {}
    for sequence in split_tokens(tokens, 1):
        model.zero_grad()
        model(**sequence).loss.backward()
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                assert weight.grad is not None
                sums[name] = sums.get(name, torch.zeros(())) + weight.grad * weight.detach() / 6
    model.zero_grad(set_to_none=True)
    total = sum(float(value.abs().sum()) for value in sums.values())
    expected = {name: value.abs() / total for name, value in sums.items()}
    for size in (2, 6):
        assert_close(compute_snip_importance(model, split_tokens(tokens, size)), expected, rtol=1e-4)


def test_snip_divides_standard_errors_too() -> None:
    model, data = make_mlp(), make_data()
    scores = compute_snip_importance(model, [data], standard_errors=True)
    taylor = compute_taylor_importance(model, [data])
    assert scores.standard_errors is not None
    gradients = []
    for inputs, target in split(data, 1):
        loss = functional.cross_entropy(model(inputs), target)
        gradients.append(torch.autograd.grad(loss, model.get_parameter("0.weight"))[0])
    stacked = torch.stack(gradients) * model.get_parameter("0.weight").detach()
    total = float(stacked.mean(0).abs().sum() / scores["0.weight"].sum(dtype=torch.float64))
    assert_close({"w": scores.standard_errors["0.weight"]}, {"w": stacked.std(0) / 12**0.5 / total}, rtol=1e-4)
    assert not torch.equal(taylor["0.weight"], scores["0.weight"])


def test_snip_refuses_a_network_that_passes_nothing() -> None:
    model = make_mlp()
    nn.init.zeros_(model.get_parameter("4.weight"))
    nn.init.zeros_(model.get_parameter("2.weight"))
    with pytest.raises(ValueError, match="all are: the gradients or the weights vanish"):
        compute_snip_importance(model, [make_data()])


# ---------------------------------------------------------------------------------------------------------------- GraSP


def grasp_by_hessian(model: nn.Module, names: list[str], loss_of: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """w * (H g), with the whole Hessian over the named weights as one matrix."""
    weights = [model.get_parameter(name).detach() for name in names]
    sizes = [weight.numel() for weight in weights]

    def loss(flat: Tensor) -> Tensor:
        parts = dict(zip(names, flat.split(sizes), strict=True))
        shaped = {name: part.view(model.get_parameter(name).shape) for name, part in parts.items()}
        result: Tensor = torch.func.functional_call(
            _Wrapped(model), {f"model.{n}": w for n, w in shaped.items()}, (loss_of,)
        )
        return result

    flat = torch.cat([weight.flatten() for weight in weights])
    gradient = torch.autograd.functional.jacobian(loss, flat)
    hessian = torch.autograd.functional.hessian(loss, flat)
    scores = (flat * (hessian @ gradient)).split(sizes)
    return {name: part.view(model.get_parameter(name).shape) for name, part in zip(names, scores, strict=True)}


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module], Tensor]) -> Tensor:
        return function(self.model)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_the_weight_times_the_hessian_times_the_gradient(temperature: float) -> None:
    model, (inputs, targets) = make_mlp(), make_data()
    expected = grasp_by_hessian(
        model, MLP_WEIGHTS, lambda module: functional.cross_entropy(module(inputs) / temperature, targets)
    )
    for size in (1, 5, 12):
        found = compute_grasp_importance(model, iter(split((inputs, targets), size)), temperature=temperature)
        assert_close(found, expected)
        assert found.report.get("num_batches") == -(-12 // size)
        assert found.report.get("num_samples") == 12
    assert any(bool((score < 0).any()) for score in expected.values())


def test_grasp_keeps_what_the_paper_keeps() -> None:
    """Algorithm 1: S = -theta * Hg; the weights above the percentile of S are removed."""
    model, (inputs, targets) = make_mlp(), make_data()
    found = grasp_by_hessian(model, MLP_WEIGHTS, lambda m: functional.cross_entropy(m(inputs) / 200, targets))
    ours = create_importance_mask(compute_grasp_importance(model, [(inputs, targets)]), 0.6)
    papers = torch.cat([-score.flatten() for score in found.values()])
    num_removed = round(0.6 * papers.numel())
    threshold = papers.topk(num_removed).values[-1]
    assert torch.equal(torch.cat([mask.flatten() for mask in ours.values()]), papers < threshold)


def test_grasp_says_how_the_norm_of_the_gradient_changes() -> None:
    """Without a Hessian: scaling one weight by 1 - e changes |g|^2 by -2 e times its score, to first order."""
    model, (inputs, targets) = make_mlp(), make_data()
    scores = compute_grasp_importance(model, [(inputs, targets)], temperature=1.0)
    weights = weights_of(model, MLP_WEIGHTS)

    def square_norm() -> float:
        loss = functional.cross_entropy(model(inputs), targets)
        return sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(weights.values())))

    with torch.no_grad():
        for name, place in (("0.weight", (2, 3)), ("2.weight", (5, 1)), ("4.weight", (0, 4))):
            value = float(weights[name][place])
            norms = []
            for step in (1e-4, -1e-4):
                weights[name][place] = value * (1 - step)
                with torch.enable_grad():
                    norms.append(square_norm())
            weights[name][place] = value
            assert (norms[0] - norms[1]) / 2e-4 == pytest.approx(-2 * float(scores[name][place]), rel=1e-4)


@pytest.mark.parametrize("kind", ["Llama", "Mixtral", "GPT2"])
def test_grasp_of_language_models_takes_sequences_for_samples(kind: str) -> None:
    """One sequence at a time, with attention written out; the temperature divides the logits of their own loss."""
    model, tokens = make_language_model(kind), make_tokens()
    model.eval()
    names = list(compute_magnitude_importance(model))
    weights = weights_of(model, names)

    def loss_of(sequence: Mapping[str, Tensor]) -> Tensor:
        logits = model(sequence["input_ids"]).logits[:, :-1] / 10
        return functional.cross_entropy(logits.flatten(0, 1), sequence["labels"][:, 1:].flatten())

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = torch.stack([loss_of(sequence) for sequence in split_tokens(tokens, 1)]).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        product = sum((gradient * gradient.detach()).sum() for gradient in gradients)
        assert isinstance(product, Tensor)
        products = torch.autograd.grad(product, list(weights.values()))
    expected = {name: weights[name] * value for name, value in zip(names, products, strict=True)}
    for size in (2, 6):
        found = compute_grasp_importance(model, split_tokens(tokens, size), temperature=10)
        assert_close(found, expected, rtol=2e-3)


def test_grasp_takes_other_losses_without_temperature_only() -> None:
    model, (inputs, _) = make_mlp(), make_data()

    def loss_fn(module: nn.Module, batch: Tensor) -> Tensor:
        return functional.mse_loss(module(batch), batch[:, :3])

    with pytest.raises(ValueError, match=r"does not call it; pass temperature=1"):
        compute_grasp_importance(model, [inputs], loss_fn=loss_fn)
    expected = grasp_by_hessian(model, MLP_WEIGHTS, lambda module: loss_fn(module, inputs))
    found = compute_grasp_importance(model, inputs.split(5), loss_fn=loss_fn, temperature=1)
    assert_close(found, expected)


def test_grasp_of_a_loss_without_curvature_is_zero() -> None:
    def loss_fn(module: nn.Module, batch: Tensor) -> Tensor:
        loss: Tensor = module(batch).sum()
        return loss

    found = compute_grasp_importance(nn.Linear(3, 2), [torch.ones(2, 3)], loss_fn=loss_fn, temperature=1)
    assert not found["weight"].any()


# ----------------------------------------------------------------------------------------------------- what all promise


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
        self.fails_at, self.num_calls = fails_at, 0
        self.linear = nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_calls += 1
        self.calls += 1
        random.random()  # noqa: S311 - no secret
        np.random.rand()  # noqa: NPY002 - callers' code may use it
        if self.num_calls == self.fails_at:
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
        assert model.num_calls > 1
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


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.head(self.second(self.first(inputs).tanh()).tanh())
        return output


def test_a_tied_weight_is_scored_by_all_its_uses() -> None:
    model, (inputs, targets) = _Tied().double(), make_data()
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

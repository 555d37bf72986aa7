"""SNIP and GraSP beside slow obvious second implementations."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets import (
    ScoringOptions,
    compute_grasp_importance,
    compute_magnitude_importance,
    compute_snip_importance,
    compute_taylor_importance,
    create_importance_mask,
)
from tests.data import assert_close, make_data, make_tokens, split, split_tokens, weights_of
from tests.lottery_tickets.scores.hessian import grasp_by_hessian
from tests.models import MLP_WEIGHTS, make_language_model, make_mlp

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
    scores = compute_snip_importance(model, [data], options=ScoringOptions(standard_errors=True))
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

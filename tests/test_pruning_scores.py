"""SNIP, GraSP, SynFlow, Wanda and movement: each against a slow obvious second implementation."""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import optimizer as torch_optimizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from lottery_tickets import (
    Importance,
    compute_grasp_importance,
    compute_magnitude_importance,
    compute_snip_importance,
    compute_synflow_importance,
    compute_taylor_importance,
    compute_wanda_importance,
    create_importance_mask,
    hold_mask,
    record_movement,
)

Pair = tuple[Tensor, Tensor]


def make_mlp(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def make_convolutions() -> nn.Sequential:
    """Convolution, batch norm whose statistics are not trivial, and a linear layer."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    with torch.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.add_(0.3 * torch.rand_like(tensor))
    return model


def make_data(dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (5,)) -> Pair:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return inputs, torch.randint(0, 3, (12,), generator=generator)


def split(data: Pair, size: int) -> list[Pair]:
    return list(zip(data[0].split(size), data[1].split(size), strict=True))


def make_language_model(kind: str, **options: str) -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attention_dropout": 0.1,
        "pad_token_id": None,
    }
    if kind == "Mixtral":
        experts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, **options}
        return MixtralForCausalLM(MixtralConfig(**sizes, **heads, **experts))
    if kind == "GPT2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=16, n_layer=2, n_head=2, n_positions=16))
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def make_tokens() -> dict[str, Tensor]:
    """Six sequences; half of them end early, so that they have fewer labels."""
    tokens = torch.randint(0, 23, (6, 9), generator=torch.Generator().manual_seed(2))
    labels = tokens.clone()
    labels[3:, 5:] = -100
    return {"input_ids": tokens, "labels": labels}


def split_tokens(tokens: Mapping[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    return [{key: value[i : i + size] for key, value in tokens.items()} for i in range(0, 6, size)]


def assert_close(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float = 1e-5) -> None:
    assert list(got) == list(expected)
    for name, score in got.items():
        assert score.dtype == torch.float32
        assert not score.requires_grad
        want = expected[name].detach()
        assert score.shape == want.shape
        torch.testing.assert_close(score.to(want), want, rtol=rtol, atol=rtol * float(want.abs().max()))


def weights_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    return {name: model.get_parameter(name) for name in names}


# ---------------------------------------------------------------------------------------------------------------- SNIP


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


# --------------------------------------------------------------------------------------------------------------- GraSP


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


MLP_WEIGHTS: Final = ["0.weight", "2.weight", "4.weight"]


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


# ------------------------------------------------------------------------------------------------------------- SynFlow


def synflow_by_the_authors_loop(
    model: nn.Module, shape: tuple[int, ...], sparsity: float, num_rounds: int
) -> dict[str, Tensor]:
    """The published loop on a copy in float64: a mask for each Linear and convolution weight; ties aside."""
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            tensor.abs_()
    names = [name for name, parameter in twin.named_parameters() if parameter.ndim > 1]
    masks = {name: torch.ones_like(twin.get_parameter(name)) for name in names}
    num_weights = sum(mask.numel() for mask in masks.values())
    for i in range(num_rounds):
        twin.zero_grad()
        twin(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
        scores = {}
        for name in names:
            parameter = twin.get_parameter(name)
            assert parameter.grad is not None
            scores[name] = (parameter * parameter.grad).detach().abs()
        num_removed = round((1 - (1 - sparsity) ** ((i + 1) / num_rounds)) * num_weights)
        if num_removed:
            threshold = torch.cat([score.flatten() for score in scores.values()]).kthvalue(num_removed).values
            masks = {name: (score > threshold).double() for name, score in scores.items()}
        with torch.no_grad():
            for name in names:
                twin.get_parameter(name).mul_(masks[name])
    return {name: mask.bool() for name, mask in masks.items()}


SYNFLOW_MODELS: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "mlp": (make_mlp, (5,)),
    "convolutions": (make_convolutions, (2, 4, 4)),
}


@pytest.mark.parametrize("kind", SYNFLOW_MODELS)
@pytest.mark.filterwarnings("ignore:layer collapse")
@pytest.mark.parametrize(("sparsity", "num_rounds"), [(0.5, 1), (0.8, 100), (0.9, 7), (0.0, 3)])
def test_synflow_gives_the_masks_of_the_authors_loop(kind: str, sparsity: float, num_rounds: int) -> None:
    make, shape = SYNFLOW_MODELS[kind]
    model = make()
    expected = synflow_by_the_authors_loop(model, shape, sparsity, num_rounds)
    scores = compute_synflow_importance(model, shape, sparsity, num_rounds)
    mask = create_importance_mask(scores, sparsity)
    assert list(mask) == list(expected)
    for name, kept in expected.items():
        assert torch.equal(mask[name], kept), name
        assert torch.equal(scores[name] > 0, kept), "pruned weights, and only these, have score 0"
        assert scores[name].dtype == torch.float32
        assert float(scores[name].max()) <= 1


def test_synflow_flows_through_each_layer_alike() -> None:
    """Conservation: without biases the scores of every layer sum to the same, R."""
    torch.manual_seed(3)
    model = nn.Sequential(*(nn.Linear(n, n, bias=False) for n in (6, 6, 6)))
    scores = compute_synflow_importance(model, (6,), 0.0, 1)
    sums = [float(score.sum(dtype=torch.float64)) for score in scores.values()]
    assert sums == pytest.approx([sums[0]] * 3)


def test_synflow_rounds_spare_layers_that_one_round_empties() -> None:
    torch.manual_seed(0)
    sizes = (40, 300, 4, 300, 10)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))
    once = compute_synflow_importance(model, (40,), 0.997, 1)
    often = compute_synflow_importance(model, (40,), 0.997, 100)
    assert not all(bool((score > 0).any()) for score in once.values())
    assert all(bool((score > 0).any()) for score in often.values())


def test_synflow_keeps_exact_counts_where_flow_is_tied_or_zero() -> None:
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Linear(6, 4, bias=False)).double()
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(1.0)
        model.get_parameter("1.weight").fill_(0.0)
        model.get_parameter("1.weight")[0] = 1.0
    scores = compute_synflow_importance(model, (8,), 0.1, 5)
    mask = create_importance_mask(scores, 0.1)
    assert mask.num_kept == 72 - round(0.1 * 72)
    for name, score in scores.items():
        assert torch.equal(mask[name], score > 0)


def test_synflow_stays_within_float64_where_float32_overflows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(30, 30, bias=False) for _ in range(30)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    mask = create_importance_mask(compute_synflow_importance(model, (30,), 0.9, 20), 0.9)
    expected = synflow_by_the_authors_loop(model, (30,), 0.9, 20)
    assert all(torch.equal(mask[name], kept) for name, kept in expected.items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e20)
    with pytest.raises(ValueError, match=r"flow through .* overflows float64"):
        compute_synflow_importance(model, (30,), 0.9)


def test_synflow_takes_shapes_and_batches() -> None:
    model = make_convolutions()
    inputs, targets = make_data(torch.float32, (2, 4, 4))
    expected = compute_synflow_importance(model, (2, 4, 4), 0.7, 3)
    for given in (torch.Size([2, 4, 4]), [2, 4, 4], inputs, (inputs, targets), [inputs]):
        found = compute_synflow_importance(model, given, 0.7, 3)
        assert all(torch.equal(found[name], score) for name, score in expected.items())


class _Flat(nn.Module):
    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"output": inputs}


TOKENS: Final = torch.zeros(2, 3, dtype=torch.long)
SYNFLOW_MISTAKES: Final[dict[str, tuple[Callable[[], object], type[Exception], str]]] = {
    "token ids": (
        lambda: compute_synflow_importance(make_mlp(), TOKENS, 0.5),
        ValueError,
        r"token ids.* another score",
    ),
    "a batch of token ids": (
        lambda: compute_synflow_importance(make_mlp(), {"input_ids": TOKENS}, 0.5),  # type: ignore[arg-type] # refused
        TypeError,
        "got a mapping; .*token ids",
    ),
    "sparsity 1": (lambda: compute_synflow_importance(make_mlp(), (5,), 1.0), ValueError, "below 1 .*got 1"),
    "sparsity 2": (lambda: compute_synflow_importance(make_mlp(), (5,), 2.0), ValueError, r"from 0 .*got 2\.0"),
    "no rounds": (lambda: compute_synflow_importance(make_mlp(), (5,), 0.5, 0), ValueError, "num_rounds .*got 0"),
    "a shape of halves": (lambda: compute_synflow_importance(make_mlp(), (2.5,), 0.5), TypeError, r"got \(2\.5,\)"),
    "size 0": (lambda: compute_synflow_importance(make_mlp(), (0,), 0.5), ValueError, "input shape .*got 0"),
    "a word": (lambda: compute_synflow_importance(make_mlp(), "five", 0.5), TypeError, "got 'five'"),
    "no model": (lambda: compute_synflow_importance({}, (5,), 0.5), TypeError, "got dict"),  # type: ignore[arg-type]
    "a dict as output": (
        lambda: compute_synflow_importance(nn.Sequential(nn.Linear(5, 2), _Flat()), (5,), 0.5),
        TypeError,
        "must return a tensor .*got dict",
    ),
}


@pytest.mark.parametrize("case", SYNFLOW_MISTAKES)
def test_synflow_refuses(case: str) -> None:
    call, error, message = SYNFLOW_MISTAKES[case]
    with pytest.raises(error, match=message):
        call()


def test_synflow_explains_why_a_language_model_cannot_be_scored() -> None:
    with pytest.raises(RuntimeError, match="indices") as raised:
        compute_synflow_importance(make_language_model("Llama"), (9,), 0.5)
    assert "such as token ids, cannot be scored this way" in "".join(raised.value.__notes__)


def test_synflow_refuses_a_network_through_which_nothing_flows() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    nn.init.zeros_(model.get_parameter("1.weight"))
    with pytest.raises(ValueError, match="in round 1 nothing does"):
        compute_synflow_importance(model, (4,), 0.5)


# --------------------------------------------------------------------------------------------------------------- Wanda


def wanda_by_unit_kernels(layer: nn.Module, inputs: Tensor) -> Tensor:
    """|w| times the norm of what the layer gives when this weight alone is 1: that is the norm of its inputs."""
    twin = copy.deepcopy(layer)
    weight = twin.get_parameter("weight")
    norms = torch.zeros_like(weight)
    with torch.no_grad():
        if "bias" in dict(twin.named_parameters()):
            twin.get_parameter("bias").zero_()
        for i in range(weight.numel()):
            weight.zero_()
            weight.view(-1)[i] = 1.0
            norms.view(-1)[i] = twin(inputs).norm()
    return norms * layer.get_parameter("weight").detach().abs()


LAYERS: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "linear": (lambda: nn.Linear(4, 3), (6, 4)),
    "linear over positions": (lambda: nn.Linear(4, 3), (6, 5, 4)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (6, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(1, 0)), (6, 3, 5, 6)),
    "conv2d same": (lambda: nn.Conv2d(2, 2, 4, padding="same"), (6, 2, 5, 5)),
    "conv2d circular": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (6, 2, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (6, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2), (6, 2, 3, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (6, 4, 3, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_wanda_is_the_weight_times_the_norm_of_its_inputs(kind: str) -> None:
    make, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer = make().double()
    inputs = torch.randn(shape, dtype=torch.float64)
    expected = {"weight": wanda_by_unit_kernels(layer, inputs)}
    for size in (1, 4, 6):
        assert_close(compute_wanda_importance(layer, inputs.split(size)), expected)


def collect_inputs(model: nn.Module, names: Iterable[str], run: Callable[[], object]) -> dict[str, Tensor]:
    """All inputs of linear layers over all tokens, (tokens, columns), by hooks."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def make_hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: seen[name].append(args[0].detach().flatten(0, -2))

    hooks = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(make_hook(name)) for name in seen
    ]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(rows) for name, rows in seen.items()}


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_wanda_of_language_models_counts_all_tokens(kind: str) -> None:
    model, tokens = make_language_model(kind), make_tokens()
    model.eval()
    names = [name for name in compute_magnitude_importance(model) if name != "lm_head.weight"]
    stacked = collect_inputs(model, names, lambda: model(**tokens))
    expected = {}
    for name, rows in stacked.items():
        norms = rows.double().square().sum(0).sqrt()
        weight = model.get_parameter(name).detach().double().abs()
        expected[name] = weight * (norms[:, None] if kind == "GPT2" else norms)
    for size in (1, 4):
        assert_close(compute_wanda_importance(model, split_tokens(tokens, size)), expected)
    scores = compute_wanda_importance(model, [tokens])
    assert_close(scores, expected)
    assert dict(scores.report)["advised_scope"] == "row"
    assert scores.report.get("num_samples") == 6
    mask = create_importance_mask(scores, 0.5, scope="row")
    for name, kept in mask.items():
        assert set(kept.sum(0 if kind == "GPT2" else 1).tolist()) == {len(stacked[name].T) // 2}


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_wanda_gives_each_expert_its_own_tokens(implementation: str) -> None:
    model, tokens = make_language_model("Mixtral", experts_implementation=implementation), make_tokens()
    model.eval()
    experts = model.get_submodule("model.layers.1.mlp.experts")
    calls: list[tuple[Tensor, ...]] = []
    hook = experts.register_forward_pre_hook(lambda _, args: calls.append(args))
    scores = compute_wanda_importance(model, [tokens])
    hook.remove()
    [(hidden, chosen, _)] = calls
    up, down = experts.get_parameter("gate_up_proj").detach(), experts.get_parameter("down_proj").detach()
    expected = {"gate_up_proj": torch.zeros_like(up), "down_proj": torch.zeros_like(down)}
    for expert in range(4):
        rows = hidden[(chosen == expert).any(-1)].detach()
        gate, linear = functional.linear(rows, up[expert]).chunk(2, -1)
        inner = functional.silu(gate) * linear
        expected["gate_up_proj"][expert] = up[expert].abs() * rows.norm(dim=0)
        expected["down_proj"][expert] = down[expert].abs() * inner.norm(dim=0)
    for name, want in expected.items():
        assert_close({name: scores[f"model.layers.1.mlp.experts.{name}"]}, {name: want}, rtol=1e-4)
    assert dict(scores.report)["num_idle_weights"] == 0


def test_wanda_counts_the_weights_of_experts_without_tokens() -> None:
    model = make_language_model("Mixtral")
    scores = compute_wanda_importance(model, [{"input_ids": torch.tensor([[3]])}])
    idle = sum(
        int((score == 0).flatten(1).all(1).sum() * score[0].numel()) for score in scores.values() if score.ndim == 3
    )
    assert idle > 0
    assert dict(scores.report)["num_idle_weights"] == idle


@pytest.mark.parametrize("packed", [True, False])
def test_wanda_looks_into_attention(packed: bool) -> None:
    torch.manual_seed(0)
    sizes = {} if packed else {"kdim": 5, "vdim": 7}
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **sizes)
    query, key, value = (torch.randn(6, 4, size) for size in ((8, 8, 8) if packed else (8, 5, 7)))

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            output: Tensor = self.attention(query, key, value)[0]
            return output

    scores = compute_wanda_importance(Cross(), [{"query": query, "key": key, "value": value}])
    norms = {
        "q": query.flatten(0, 1).norm(dim=0),
        "k": key.flatten(0, 1).norm(dim=0),
        "v": value.flatten(0, 1).norm(dim=0),
    }
    weights = dict(attention.named_parameters())
    if packed:
        found = scores["attention.in_proj_weight"]
        want = weights["in_proj_weight"].abs() * torch.stack(list(norms.values())).repeat_interleave(8, 0)
        assert_close({"in": found}, {"in": want})
    else:
        for letter, norm in norms.items():
            name = f"{letter}_proj_weight"
            assert_close({name: scores[f"attention.{name}"]}, {name: weights[name].abs() * norm})
    assert bool((scores["attention.out_proj.weight"] > 0).all())


def test_wanda_of_a_transformer_layer_does_not_take_the_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    inputs = torch.randn(6, 4, 8)
    scores = compute_wanda_importance(layer, [inputs])
    norms = inputs.flatten(0, 1).norm(dim=0)
    want = layer.get_parameter("self_attn.in_proj_weight").abs() * norms
    assert_close({"w": scores["self_attn.in_proj_weight"]}, {"w": want})


class _Products(nn.Module):
    """One weight, multiplied in as many ways as torch has."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        ways: dict[str, Callable[[], Tensor]] = {
            "matmul": lambda: inputs @ self.weight.T,
            "mm": lambda: torch.mm(inputs, self.weight.t()),
            "from the left": lambda: (self.weight @ inputs.T).T,
            "addmm": lambda: torch.addmm(torch.zeros(3), inputs, self.weight.t()),
            "bmm": lambda: torch.bmm(inputs[None], self.weight[None].transpose(1, 2))[0],
            "in two parts": lambda: torch.cat(
                [functional.linear(inputs, part) for part in self.weight.split([1, 2])], 1
            ),
            "two halves of the inputs": lambda: torch.stack(
                [functional.linear(a, b) for a, b in zip(inputs.chunk(2, 1), self.weight.chunk(2, 1), strict=True)]
            ).sum(0),
            "einsum": lambda: torch.einsum("ni,oi->no", inputs, self.weight),
            "scaled": lambda: functional.linear(inputs, 2 * self.weight),
            "under no_grad": self._without_gradient(inputs),
            "never": lambda: inputs,
            "with itself": lambda: inputs @ (self.weight.T @ self.weight),
        }
        return ways[self.way]()

    def _without_gradient(self, inputs: Tensor) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return functional.linear(inputs, self.weight)

        return run


@pytest.mark.parametrize(
    "way", ["matmul", "mm", "from the left", "addmm", "bmm", "in two parts", "two halves of the inputs"]
)
def test_wanda_finds_products_of_all_kinds(way: str) -> None:
    model, inputs = _Products(way), torch.randn(6, 4)
    scores = compute_wanda_importance(model, [inputs], include="weight")
    assert_close(scores, {"weight": model.weight.abs() * inputs.norm(dim=0)})


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("einsum", "'weight' is used by einsum"),
        ("scaled", "'weight' is used by (mul|__rmul__)"),
        ("under no_grad", "do not use weight, or only under no_grad"),
        ("never", "do not use weight"),
        ("with itself", "'weight' is multiplied with another weight"),
    ],
)
def test_wanda_names_weights_whose_inputs_it_cannot_find(way: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"inputs of every weight must be found, but .*{reason}"):
        compute_wanda_importance(_Products(way), [torch.randn(6, 4)], include="weight")


def test_wanda_takes_every_kind_of_batch() -> None:
    model, (inputs, targets) = make_mlp(), make_data()
    expected = compute_wanda_importance(model, [inputs])
    assert_close(compute_wanda_importance(model, [(inputs, targets)]), expected)
    assert_close(compute_wanda_importance(model, [[inputs]]), expected)
    named = compute_wanda_importance(model, [{"x": inputs}], loss_fn=lambda module, batch: module(batch["x"]))
    assert_close(named, expected)
    assert_close(compute_wanda_importance(model, [inputs], offload="cpu"), expected)
    with pytest.raises(ValueError, match="offload must be None or 'cpu', got 'disk'"):
        compute_wanda_importance(model, [inputs], offload="disk")  # type: ignore[arg-type] # refused


def test_torchao_compares_over_the_layer_and_rows_compare_otherwise() -> None:
    """Torchao up to 0.18: one threshold for the whole layer, by which rows of small weights lose everything."""
    torch.manual_seed(0)
    model = nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        model.weight.mul_(torch.tensor([[1.0], [0.01], [1.0], [0.01]]))
    inputs = torch.randn(20, 8) * torch.arange(1, 9)
    scores = compute_wanda_importance(model, [inputs])
    metric = model.weight.detach().abs() * inputs.norm(dim=0)
    by_row = torch.zeros(4, 8, dtype=torch.bool).scatter(1, metric.sort(dim=1).indices[:, 4:], 1)  # the authors' code
    by_layer = metric > metric.flatten().sort().values[15]
    mask = create_importance_mask(scores, 0.5, scope=str(dict(scores.report)["advised_scope"]))
    assert torch.equal(mask["weight"], by_row)
    assert not torch.equal(by_layer, by_row)
    assert torch.equal(create_importance_mask(scores, 0.5, scope="layer")["weight"], by_layer)


# ------------------------------------------------------------------------------------------------------------ movement


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Pair]) -> None:
    for inputs, targets in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


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
        train(model, optimizer, split(data, 3))
        during = movement.importance()
    assert_close(movement.importance(), expected)
    assert_close(during, expected)
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


# --------------------------------------------------------------------------------------------------- what all promise


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


@pytest.mark.parametrize("score", WITH_DATA)
def test_nan_in_the_data_is_not_ranked(score: str) -> None:
    inputs, targets = make_data()
    with pytest.raises(ValueError, match=r"finite.* look for NaN"):
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

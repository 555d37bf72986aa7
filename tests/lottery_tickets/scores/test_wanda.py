"""Wanda: weights times norms of their inputs, whatever the layer."""

import copy
from collections.abc import Callable, Iterable
from typing import Final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets import (
    compute_magnitude_importance,
    compute_wanda_importance,
    create_importance_mask,
)
from tests.data import assert_close, make_data, make_tokens, split_tokens
from tests.models import make_language_model, make_mlp


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


def test_wanda_adds_up_overlapping_uses() -> None:
    inputs, weight = torch.randn(6, 4), torch.randn(3, 4)
    model = nn.Linear(4, 3, bias=False)
    model.load_state_dict({"weight": weight})

    def run(module: nn.Module, batch: Tensor) -> Tensor:
        whole: Tensor = module.weight  # type: ignore[assignment] # of a Linear
        return functional.linear(batch, whole)[:, :1] + functional.linear(2 * batch, whole[:1])

    norms = inputs.norm(dim=0) * torch.tensor([[5**0.5], [1.0], [1.0]])
    assert_close(compute_wanda_importance(model, [inputs], loss_fn=run), {"weight": weight.abs() * norms})


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


def test_wanda_of_a_bfloat16_model_sums_squares_in_float32() -> None:
    model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(model.weight)
    loader = torch.ones(900, 1).bfloat16().split(3)
    assert float(compute_wanda_importance(model, loader, 900)["weight"]) == 30.0, "a bfloat16 sum stops at 256"


def test_wanda_keeps_no_graph() -> None:
    def run(module: nn.Module, batch: Tensor) -> Tensor:
        output: Tensor = module(batch)
        assert not output.requires_grad
        return output

    compute_wanda_importance(make_mlp(), [make_data()[0]], loss_fn=run, include="2")


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

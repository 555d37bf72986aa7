"""Which weights are pruned, of which kinds of modules, and how the choice is changed."""

import inspect
import warnings
from collections.abc import Mapping
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights


class Conv1D(nn.Module):
    """As transformers lays it out: the weight is (inputs, outputs)."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_inputs, num_outputs))
        self.bias = nn.Parameter(torch.zeros(num_outputs))


class FusedExperts(nn.Module):
    """As transformers lays most out: (expert, outputs, inputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 8, 5))
        self.down_proj = nn.Parameter(torch.randn(3, 5, 4))
        self.gate_up_proj_bias = nn.Parameter(torch.randn(3, 8))


class GptOssExperts(FusedExperts):
    """As transformers lays this one out: (expert, inputs, outputs)."""


class LanguageModel(nn.Module):
    """An embedding, a block, and a head that is tied to the embedding or not."""

    def __init__(self, *, tied: bool, head: str = "lm_head") -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        self.head_name = head
        setattr(self, head, nn.Linear(4, 10, bias=False))
        if tied:
            getattr(self, head).weight = self.embed.weight


class WithOutputEmbeddings(LanguageModel):
    def get_output_embeddings(self) -> nn.Module:
        return self.get_submodule(self.head_name)


BLOCK = ["block.0.weight", "block.2.weight"]


def dims_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: weight.output_dims for name, weight in find_prunable_weights(model).items()}


def test_every_kind_of_weight_has_its_output_dimensions() -> None:
    assert dims_of(nn.Linear(3, 2)) == {"weight": (0,)}
    assert dims_of(nn.Conv2d(3, 2, 3)) == {"weight": (0,)}
    assert dims_of(nn.ConvTranspose2d(3, 2, 3)) == {"weight": (1,)}
    assert dims_of(Conv1D(5, 4)) == {"weight": (1,)}
    assert dims_of(FusedExperts()) == {"gate_up_proj": (0, 1), "down_proj": (0, 1)}
    assert dims_of(GptOssExperts()) == {"gate_up_proj": (0, 2), "down_proj": (0, 2)}
    assert dims_of(nn.MultiheadAttention(4, 2)) == {"in_proj_weight": (0,), "out_proj.weight": (0,)}
    separate = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert list(dims_of(nn.MultiheadAttention(4, 2, kdim=3, vdim=5))) == separate


def test_norms_embeddings_and_biases_are_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.PReLU(4), nn.Linear(4, 2))
    assert list(find_prunable_weights(model)) == ["4.weight"]


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_head_is_left_alone(tied: bool) -> None:
    assert list(find_prunable_weights(LanguageModel(tied=tied))) == BLOCK
    assert list(find_prunable_weights(WithOutputEmbeddings(tied=tied, head="decoder"))) == BLOCK
    untied = LanguageModel(tied=False, head="decoder")
    assert list(find_prunable_weights(untied)) == [*BLOCK, "decoder.weight"]


def test_a_model_whose_head_is_not_there_is_no_error() -> None:
    class Base(LanguageModel):
        def get_output_embeddings(self) -> nn.Module:
            raise NotImplementedError

    assert list(find_prunable_weights(Base(tied=False))) == BLOCK


def test_shared_weights_count_once_under_their_first_name() -> None:
    first, second, third = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    third.weight = nn.Parameter(first.weight.data)  # another parameter, the same storage
    model = nn.Sequential(first, second, third)
    assert list(find_prunable_weights(model)) == ["0.weight"]
    assert list(find_prunable_weights(model, include="2.weight")) == ["0.weight"]
    assert list(find_prunable_weights({"a.weight": first.weight, "b.weight": third.weight})) == ["a.weight"]


def test_frozen_empty_and_strided_weights_count() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(4, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the zero-size weight
        model.append(nn.Linear(0, 2))
    model[0].requires_grad_(requires_grad=False)
    model[1].weight = nn.Parameter(torch.randn(4, 5).T)
    assert list(find_prunable_weights(model)) == ["0.weight", "1.weight", "2.weight"]


def test_the_tensor_is_the_parameter_itself() -> None:
    model = nn.Linear(3, 2)
    assert find_prunable_weights(model)["weight"].tensor is model.weight


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ("block.0.weight", None, BLOCK[:1]),
        ("block", None, BLOCK),
        ("block.*", None, BLOCK),  # not the norm, not the biases: the pattern matches prunable kinds
        ("*", None, [*BLOCK, "lm_head.weight"]),
        ("*.bias", None, ["block.0.bias", "block.1.bias", "block.2.bias"]),
        ("lm_head", None, ["lm_head.weight"]),
        (nn.Linear, None, [*BLOCK, "lm_head.weight"]),
        (nn.Embedding, None, ["embed.weight"]),
        (nn.LayerNorm, None, ["block.1.weight", "block.1.bias"]),
        (["lm_head", nn.LayerNorm], None, ["block.1.weight", "block.1.bias", "lm_head.weight"]),
        (None, "block.2", BLOCK[:1]),
        (None, ["*.0.*", "*.bias"], BLOCK[1:]),
        (None, nn.Embedding, BLOCK),
        (nn.Linear, "lm_head", BLOCK),
    ],
)
def test_include_replaces_the_choice_and_exclude_removes_from_it(
    include: Choices | None, exclude: Choices | None, expected: list[str]
) -> None:
    model = LanguageModel(tied=False)
    assert list(find_prunable_weights(model, include=include, exclude=exclude)) == expected


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_wrappers_do_not_show_in_names() -> None:
    model = LanguageModel(tied=False)
    compiled = torch.compile(model)
    assert isinstance(compiled, nn.Module)
    assert list(find_prunable_weights(compiled)) == BLOCK
    part = nn.ModuleList([nn.Linear(2, 2)])
    part[0] = cast("nn.Module", torch.compile(part[0]))
    assert list(find_prunable_weights(part)) == ["0.weight"]
    assert list(find_prunable_weights(compiled.state_dict())) == BLOCK
    assert list(find_prunable_weights({f"module.{name}": t for name, t in model.state_dict().items()})) == BLOCK


@pytest.mark.filterwarnings("ignore:.*DataParallel.*:DeprecationWarning")
def test_data_parallelism_does_not_show_in_names() -> None:
    assert list(find_prunable_weights(nn.DataParallel(LanguageModel(tied=False)))) == BLOCK


def test_of_a_state_dict_matrices_are_taken_by_name() -> None:
    weights = {
        "transformer.wte.weight": torch.randn(5, 4),
        "transformer.h.0.ln_1.weight": torch.randn(4),
        "transformer.h.0.attn.weight": torch.randn(4, 4),
        "transformer.h.0.attn.bias": torch.randn(4, 4),
        "model.layers.0.input_layernorm.weight": torch.randn(4, 4),
        "model.layers.0.mlp.experts.down_proj": torch.randn(2, 4, 4),
        "conv.weight": torch.randn(4, 4, 3, 3),
        "num_batches_tracked": torch.tensor(3),
        "codes.weight": torch.ones(4, 4, dtype=torch.int8),
        "lm_head.weight": torch.randn(4, 4),
    }
    found = {name: weight.output_dims for name, weight in find_prunable_weights(weights).items()}
    assert found == {
        "transformer.h.0.attn.weight": (0,),
        "model.layers.0.mlp.experts.down_proj": (0, 1),
        "conv.weight": (0,),
    }


def pruned() -> nn.Module:
    layer = nn.Linear(3, 2)
    prune.l1_unstructured(layer, "weight", 1)
    return layer


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyLinear(3))


@pytest.mark.parametrize(
    ("model", "include", "exclude", "error", "message"),
    [
        (
            nn.Linear(3, 2),
            "wieght",
            None,
            ValueError,
            "include must match a parameter, but 'wieght' matches none of weight",
        ),
        (nn.Linear(3, 2), None, nn.Conv2d, ValueError, "exclude must match a parameter, but Conv2d matches none"),
        (nn.Linear(3, 2), None, "weight", ValueError, "there must be a weight to prune, .* there are weight, bias"),
        (nn.ReLU(), None, None, ValueError, "there must be a weight to prune, .* there are no parameters"),
        ({}, None, None, ValueError, "there must be a weight to prune"),
        (nn.Linear(3, 2), 3, None, TypeError, "include must hold names, glob patterns or module types, got 3"),
        (nn.Linear(3, 2), None, [int], TypeError, "exclude must hold names, glob patterns or module types, got <class"),
        (pruned(), None, None, ValueError, "'weight' must be a parameter, but it is computed .*prune.remove"),
        (parametrizations.weight_norm(nn.Linear(3, 2)), None, None, ValueError, "'weight' must be a parameter"),
        (lazy(), None, None, ValueError, "'0.weight' must be initialised, but it is lazy; run one batch"),
        (nn.Linear(3, 2, device="meta"), None, None, ValueError, "'weight' must hold values, but it is on the meta"),
        (nn.Linear(3, 2, dtype=torch.complex64), None, None, ValueError, "'weight' must be real floating-point, got"),
        ({"a.weight": 3.0}, None, None, TypeError, "must map names to tensors, got str to float for 'a.weight'"),
        (torch.ones(3), None, None, TypeError, "the model must be a torch.nn.Module or a mapping .*, got Tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore:Complex modules")
def test_bad_arguments_are_refused(
    model: nn.Module | Mapping[str, Tensor],
    include: Choices | None,
    exclude: Choices | None,
    error: type[Exception],
    message: str,
) -> None:
    unchecked = inspect.unwrap(find_prunable_weights)  # in tests, beartype would refuse first
    with pytest.raises(error, match=message):
        unchecked(model, include=include, exclude=exclude)


def test_a_refused_weight_can_be_left_out() -> None:
    model = nn.Sequential(pruned(), nn.Linear(3, 2))
    assert list(find_prunable_weights(model, exclude="0.weight")) == ["1.weight"]


def test_long_lists_of_names_are_cut() -> None:
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(15)])
    with pytest.raises(ValueError, match=r"9\.bias and 10 more$"):
        find_prunable_weights(model, include="nothing")

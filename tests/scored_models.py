"""Small models and data for the tests of scores, and how scores are compared."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

Pair = tuple[Tensor, Tensor]
MLP_WEIGHTS: Final = ["0.weight", "2.weight", "4.weight"]


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


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Pair]) -> None:
    for inputs, targets in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

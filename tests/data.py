"""Small data for the models of the tests, and how scores are compared."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[Tensor, Tensor]


def make_data(dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (5,)) -> Pair:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return inputs, torch.randint(0, 3, (12,), generator=generator)


def split(data: Pair, size: int) -> list[Pair]:
    return list(zip(data[0].split(size), data[1].split(size), strict=True))


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

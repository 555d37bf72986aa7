"""Every score of the package that looks at data, and what the tests of all of them share."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

import lottery_tickets
from lottery_tickets import (
    Importance,
    compute_fisher_importance,
    compute_gradient_importance,
    compute_hybrid_importance,
    compute_taylor_importance,
)
from tests.models import make_dropout_mlp

Score = Callable[..., Importance]

# Every score of the package that looks at data, by what it is called with.
SCORES: dict[str, Score] = {
    "fisher": compute_fisher_importance,
    "saliency": partial(compute_fisher_importance, saliency=True),
    "fisher, sampled": partial(compute_fisher_importance, kind="sampled"),
    "fisher, exact": partial(compute_fisher_importance, kind="exact"),
    "gradient": compute_gradient_importance,
    "gradient of the mean": partial(compute_gradient_importance, average="gradients"),
    "taylor": compute_taylor_importance,
    "taylor, squared": partial(compute_taylor_importance, norm="squared"),
    "taylor, units": partial(compute_taylor_importance, granularity="unit", norm="squared"),
    "hybrid": compute_hybrid_importance,
    "hybrid by layer": partial(compute_hybrid_importance, weights={"saliency": 2, "taylor": 1}, rank_within="layer"),
}

for published in ("snip", "grasp", "wanda"):
    SCORES[published] = getattr(lottery_tickets, f"compute_{published}_importance")

RANKS = {name for name in SCORES if name.startswith("hybrid")}  # ranks are exact up to ties, which rounding breaks


def make_mlp() -> nn.Sequential:
    return make_dropout_mlp(sizes=(6, 8, 4), seed=None)


def make_data(num_samples: int = 24, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(num_samples, 6, dtype=dtype), torch.randint(4, (num_samples,))


def batch(data: tuple[Tensor, Tensor], *sizes: int) -> list[tuple[Tensor, Tensor]]:
    inputs, targets = data
    return list(zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))


def assert_same(got: Importance, wanted: Importance, name: str, rtol: float = 1e-4) -> None:
    """Checks scores for equality to float32 rounding of sums in another order."""
    assert got.keys() == wanted.keys()
    for key, score in wanted.items():
        atol = 0.05 if name in RANKS else rtol * float(score.abs().max())
        torch.testing.assert_close(got[key], score, rtol=rtol, atol=atol)


# ------------------------------------------------------------------------------------------------ what each must mean


def gradients_of(model: nn.Module, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Returns each sample's gradient of each weight, the samples first."""
    model.eval()
    rows: dict[str, list[Tensor]] = {}
    for inputs, target in zip(data[0].split(1), data[1].split(1), strict=True):
        loss = functional.cross_entropy(model(inputs), target)
        weights = {name: p for name, p in model.named_parameters() if p.ndim > 1}
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            rows.setdefault(name, []).append(gradient)
    return {name: torch.stack(gradients) for name, gradients in rows.items()}

"""Ranks without sorting everything: against sorting everything."""

import pytest
import torch
from torch import Tensor

from lottery_tickets._core.weights import Weights
from lottery_tickets.scores.ranks import _rank_by_buckets, compute_ranks


def rank_by_sorting(scores: list[Tensor]) -> Tensor:
    """Returns each number's mean rank among all of them, from 0 to 1: how many are less, and half of the equal."""
    flat = torch.cat([score.flatten() for score in scores])
    less = torch.stack([(flat < number).sum() + ((flat == number).sum()) / 2 for number in flat])
    return less.float() / len(flat)


def draw(kind: str) -> list[Tensor]:
    sizes = [(30, 20), (7,), (4, 5, 6)]
    if kind == "many ties":
        return [torch.randint(5, size).float() for size in sizes]
    if kind == "mostly zero":
        return [torch.randn(size).relu() * (torch.rand(size) > 0.5) for size in sizes]
    return [torch.randn(size).abs() * 10.0 ** torch.randint(-30, 30, size) for size in sizes]


@pytest.mark.parametrize("kind", ["many ties", "mostly zero", "any size"])
def test_exact_ranks(kind: str) -> None:
    scores = dict(zip("abc", draw(kind), strict=True))
    got = compute_ranks(Weights.from_tensors(scores), "global")
    torch.testing.assert_close(
        torch.cat([rank.flatten() for rank in got.values()]), rank_by_sorting(list(scores.values())), rtol=0, atol=1e-6
    )
    by_layer = compute_ranks(Weights.from_tensors(scores), "layer")
    for name, score in scores.items():
        torch.testing.assert_close(by_layer[name].flatten(), rank_by_sorting([score]), rtol=0, atol=1e-6)
    rows = compute_ranks(Weights.from_tensors({"a": scores["a"]}, {"a": (1,)}), "row")["a"]
    for column in range(20):
        torch.testing.assert_close(rows[:, column], rank_by_sorting([scores["a"][:, column]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["mostly zero", "any size"])
def test_ranks_by_buckets_keep_the_order_and_come_near(kind: str) -> None:
    scores = draw(kind)
    ranks = _rank_by_buckets(Weights.from_tensors(dict(zip("abc", scores, strict=True))))
    got, wanted = torch.cat([rank.flatten() for rank in ranks.values()]), rank_by_sorting(scores)
    flat = torch.cat([score.flatten() for score in scores])
    order = flat.argsort()
    assert bool((got[order].diff() >= 0).all())
    assert bool((got[order].diff()[flat[order].diff() > 0] > 0).all())
    buckets = (flat + 0.0).view(torch.int32) >> 15
    shares = torch.stack([(buckets == bucket).sum() for bucket in buckets]) / len(flat)
    assert bool(((got - wanted).abs() <= shares + 1e-6).all())

"""Ranks of scores on a common scale, 0 for the least and 1 for the largest, without sorting all of them."""

from collections.abc import Iterable, Iterator
from typing import Final

import torch
from torch import Tensor

from lottery_tickets._core.weights import Weights

LOW_BITS: Final = 15  # of a non-negative float32's 31; the 16 above number the buckets
CHUNK: Final = 2**22


def compute_ranks(scores: Weights, scope: str) -> dict[str, Tensor]:
    """Returns the share of the group's scores that lie below each, in [0, 1], float32, in the shapes of the scores.

    Ranks are exact, with the mean rank for ties, in a row and in groups of up to 4 million scores. In larger groups a
    score's place among those that agree with it in the first 8 bits of the mantissa is interpolated: the order is kept,
    and the rank is off by at most the share of those.

    Args:
        scores: Non-negative float32.
        scope: "global", "layer" or "row".

    Raises:
        ValueError: When the scope is another.
    """
    if scope == "global":
        return dict(zip(scores, _rank_together(list(scores.tensors.values())), strict=True))
    if scope == "layer":
        return {name: _rank_together([score])[0] for name, score in scores.tensors.items()}
    if scope == "row":
        return {name: _rank_rows(score.tensor, score.output_dims) for name, score in scores.items()}
    raise ValueError(f"scope must be 'global', 'layer' or 'row' for ranks, got {scope!r}")


def _rank_together(scores: list[Tensor]) -> list[Tensor]:
    sizes = [score.numel() for score in scores]
    if sum(sizes) <= CHUNK:
        flat = torch.cat([score.detach().flatten().to(scores[0].device) for score in scores])
        parts = _rank_ascending(flat.unsqueeze(0))[0].split(sizes)
        return [part.view(score.shape).to(score.device) for part, score in zip(parts, scores, strict=True)]
    return _rank_by_buckets(scores)


def _rank_by_buckets(scores: list[Tensor]) -> list[Tensor]:
    counts = torch.zeros(2**16, dtype=torch.int64)
    num_zeros = 0
    for chunk in _iterate_chunks(scores):
        patterns = chunk.view(torch.int32)
        counts += torch.bincount(patterns >> LOW_BITS, minlength=2**16).cpu()
        num_zeros += int((patterns == 0).sum())
    total = max(1, int(counts.sum()))
    below = (counts.cumsum(0) - counts).double() / total
    shares = counts.double() / total
    return [_interpolate(score, below, shares, num_zeros / total) for score in scores]


def _interpolate(score: Tensor, below: Tensor, shares: Tensor, share_of_zeros: float) -> Tensor:
    below, shares = below.to(score.device), shares.to(score.device)
    ranks = []
    for chunk in _iterate_chunks([score]):
        patterns = chunk.view(torch.int32)
        buckets, low = patterns >> LOW_BITS, patterns & (2**LOW_BITS - 1)
        rank = below[buckets] + shares[buckets] * (low + 0.5) / 2**LOW_BITS
        # Zeros are the one large tie to expect, so they get their mean rank.
        ranks.append(torch.where(patterns == 0, share_of_zeros / 2, rank).float())
    return torch.cat(ranks).view(score.shape) if ranks else score.clone()


def _rank_rows(score: Tensor, output_dims: tuple[int, ...]) -> Tensor:
    order = (*output_dims, *(dim for dim in range(score.ndim) if dim not in output_dims))
    ordered = score.permute(order)
    rows = ordered.reshape(ordered.shape[: len(output_dims)].numel(), -1)
    ranks = _rank_ascending(rows).view(ordered.shape)
    return ranks.permute(sorted(range(score.ndim), key=order.__getitem__)).contiguous()


def _rank_ascending(rows: Tensor) -> Tensor:
    """Returns the mean rank of each number within its row, from 0 to 1."""
    ascending = rows.contiguous().sort(dim=1).values
    left, right = (torch.searchsorted(ascending, rows.contiguous(), right=side) for side in (False, True))
    return ((left + right).double() / (2 * max(1, rows.shape[1]))).float()


def _iterate_chunks(scores: Iterable[Tensor]) -> Iterator[Tensor]:
    for score in scores:
        # -0.0 + 0.0 is 0.0, whose bits are all zero
        yield from ((chunk + 0.0).contiguous() for chunk in score.detach().flatten().split(CHUNK) if len(chunk))

"""Ranks of scores on a common scale, 0 for the least and 1 for the largest, without sorting all of them."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.pieces import gather_whole
from lottery_tickets._core.sharding.together import Counts, Together
from lottery_tickets._core.weights import Weight, Weights

LOW_BITS: Final = 15  # of a non-negative float32's 31; the 16 above number the buckets
CHUNK: Final = 2**22


def compute_ranks(scores: Weights, scope: str) -> dict[str, Tensor]:
    """Returns the share of the group's scores that lie below each, in [0, 1], float32, of what lies here.

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
        return _rank_together(scores)
    if scope == "layer":
        return {name: _rank_together(scores.part([name]))[name] for name in scores}
    if scope == "row":
        return {name: _rank_within_rows(score, scores.together) for name, score in scores.items()}
    raise ValueError(f"scope must be 'global', 'layer' or 'row' for ranks, got {scope!r}")


def _rank_together(scores: Weights) -> dict[str, Tensor]:
    if scores.num_weights > CHUNK:
        return _rank_by_buckets(scores)
    device = next(iter(scores.values())).device
    here = torch.cat([_see(score).flatten().to(device) for score in scores.values()])
    counted = [_see(score).flatten().cpu() for score in scores.values() if score.is_counted]
    parts = scores.together.gather(lambda: torch.cat([*counted, torch.zeros(0)]))
    ranks = _rank_among(here.unsqueeze(0), torch.cat(parts).to(device).unsqueeze(0))[0]
    split = ranks.split([score.size for score in scores.values()])
    return {
        name: part.view(score.shape).to(score.device) for (name, score), part in zip(scores.items(), split, strict=True)
    }


def _rank_by_buckets(scores: Weights) -> dict[str, Tensor]:
    def count() -> Counts:
        counts = np.zeros(2**16 + 1, dtype=np.int64)
        for chunk in _iterate_chunks([_see(score) for score in scores.values() if score.is_counted]):
            patterns = chunk.view(torch.int32)
            counts[:-1] += torch.bincount(patterns >> LOW_BITS, minlength=2**16).cpu().numpy()
            counts[-1] += int((patterns == 0).sum())
        return counts

    found = torch.from_numpy(scores.together.sum(2**16 + 1, count))
    counts, num_zeros = found[:-1], int(found[-1])
    total = max(1, int(counts.sum()))
    below = (counts.cumsum(0) - counts).double() / total
    shares = counts.double() / total
    return {name: _interpolate(_see(score), below, shares, num_zeros / total) for name, score in scores.items()}


def _see(score: Weight) -> Tensor:
    """Returns the scores that lie here."""
    return see_local(score.tensor).detach()


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


def _rank_within_rows(score: Weight, together: Together) -> Tensor:
    piece, here = score.piece, _see(score)
    inner = [dim for dim in range(here.ndim) if dim not in score.output_dims]
    if piece is None or not any(getattr(placement, "dim", None) in inner for placement in piece.placements):
        return _rank_rows(here, score.output_dims)
    whole = gather_whole(here, piece, together)  # of one weight at a time
    return piece.cut(_rank_rows(whole, score.output_dims)).to(here.device)


def _rank_rows(score: Tensor, output_dims: tuple[int, ...]) -> Tensor:
    order = (*output_dims, *(dim for dim in range(score.ndim) if dim not in output_dims))
    ordered = score.permute(order)
    num_rows = ordered.shape[: len(output_dims)].numel()
    rows = ordered.reshape(num_rows, score.numel() // max(1, num_rows))
    ranks = _rank_among(rows, rows).view(ordered.shape)
    return ranks.permute(sorted(range(score.ndim), key=order.__getitem__)).contiguous()


def _rank_among(rows: Tensor, others: Tensor) -> Tensor:
    """Returns the mean rank of each number among those of a row, from 0 to 1."""
    ascending = others.contiguous().sort(dim=1).values
    left, right = (torch.searchsorted(ascending, rows.contiguous(), right=side) for side in (False, True))
    return ((left + right).double() / (2 * max(1, others.shape[1]))).float()


def _iterate_chunks(scores: Iterable[Tensor]) -> Iterator[Tensor]:
    for score in scores:
        # -0.0 + 0.0 is 0.0, whose bits are all zero
        yield from ((chunk + 0.0).contiguous() for chunk in score.detach().flatten().split(CHUNK) if len(chunk))

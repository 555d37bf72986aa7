"""Scores of different units mixed: each becomes ranks, and ranks can be added."""

from collections.abc import Collection, Mapping
from typing import Final

import torch

from lottery_tickets._core.sharding.dtensors import see_local, wrap_like
from lottery_tickets._core.weights import Weights
from lottery_tickets.scores.importance import Importance
from lottery_tickets.scores.ranks import compute_ranks

EQUAL_SHARES: Final = ("magnitude", "fisher", "taylor")


def mix_ranks(parts: Mapping[str, Importance], shares: Mapping[str, float], scope: str) -> Importance:
    """Returns the sum of each score's ranks times its share.

    Args:
        parts: Scores of the same weights, by name.
        shares: By the same names.
        scope: What a rank is among: "global", "layer" or "row".
    """
    first = next(iter(parts.values()))
    mixed = {name: torch.zeros_like(see_local(score)) for name, score in first.items()}
    for part, importance in parts.items():
        scores = Weights.from_tensors(importance, importance.output_dims)
        for name, ranks in compute_ranks(scores, scope).items():
            mixed[name].add_(ranks, alpha=shares[part])
    terms = " + ".join(f"{shares[part]:g} * {importance.report['score']}" for part, importance in parts.items())
    # The fullest report, because that of magnitudes knows nothing of samples.
    report = max((importance.report for importance in parts.values()), key=len)
    mixed = {name: wrap_like(here, first[name]) for name, here in mixed.items()}
    return Importance(mixed, {**report, "score": f"ranks within {scope}: {terms}"}, output_dims=first.output_dims)


def find_shares(weights: Mapping[str, float] | None, known: Collection[str]) -> dict[str, float]:
    """Returns the share of each score that has one, so that all are 1 together.

    Args:
        weights: By the names of scores; None for equal shares of magnitude, fisher and taylor.
        known: The names of all scores.

    Raises:
        ValueError: When a name is unknown, a number is below 0, or all are 0.
    """
    shares = dict.fromkeys(EQUAL_SHARES, 1.0) if weights is None else dict(weights)
    for name, share in shares.items():
        if name not in known:
            raise ValueError(f"weights must name scores of {', '.join(sorted(known))}, got {name!r}")
        if not 0 <= share < float("inf"):
            raise ValueError(f"the weight of {name!r} must be a number of at least 0, got {share!r}")
    total = sum(shares.values())
    if not total:
        raise ValueError(f"at least one weight must be above 0, got {shares}")
    return {name: share / total for name, share in shares.items() if share}

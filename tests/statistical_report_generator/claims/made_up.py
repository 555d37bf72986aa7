"""Made-up accuracies, and what is claimed on them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.claims.types import Claims, LevelClaim
from tests.statistical_report_generator.summaries import make_results

NAMES = ("reinitialised", "shuffled", "random")

DENSE = [0.9800, 0.9820, 0.9810, 0.9790, 0.9805, 0.9815]

JITTER = [0.0003, -0.0002, 0.0001, -0.0003, 0.0002, -0.0001]

Accuracies = Mapping[tuple[int, str], Sequence[float]]


def move(distance: float, jitter: Sequence[float] = JITTER) -> list[float]:
    """Returns accuracies at a mean distance from dense."""
    return [value + distance + noise for value, noise in zip(DENSE, jitter, strict=True)]


def with_controls(level: int, ticket: list[float], *controls: list[float]) -> dict[tuple[int, str], list[float]]:
    return {(level, "ticket"): ticket, **{(level, n): c for n, c in zip(NAMES, controls, strict=False)}}


def assess(accuracies: Accuracies, **options: Any) -> Claims:  # noqa: ANN401 - any option
    claims = assess_claims(make_results({(0, "ticket"): DENSE, **accuracies}), **options)
    json.dumps(claims, allow_nan=False)
    return claims


def assess_one(*branches: list[float], **options: Any) -> LevelClaim:  # noqa: ANN401 - any option
    (level,) = assess(with_controls(3, *branches), **options)["levels"]
    return level

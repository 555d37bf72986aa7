"""The scores that `score_worth` compares: from a trained model and its data to a mask for each sparsity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets import (
    Mask,
    compute_fisher_importance,
    compute_gradient_importance,
    compute_grasp_importance,
    compute_hybrid_importance,
    compute_snip_importance,
    compute_taylor_importance,
    compute_wanda_importance,
    create_importance_mask,
    create_magnitude_mask,
    create_random_mask,
)
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets.importance_scoring import compute_magnitude_importance
from lottery_tickets.scores.formulas import FISHER, GRADIENTS
from lottery_tickets.scores.gradient_scores import score_gradients
from lottery_tickets.scores.importance import Importance
from lottery_tickets.scores.mixing import mix_ranks

ALL: Final = 2**30  # samples: all there are
MAGNITUDE: Final = "magnitude"
Makers = Mapping[str, Callable[[float], Mask]]  # from a sparsity to a mask, by the name of the score


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model of one replicate.

    Attributes:
        model: In evaluation mode.
        batches: What scores are computed on.
        evaluate: Gives loss (nats) and accuracy of a model on the test split.
        seed: Of the random mask.
    """

    model: nn.Module
    batches: list[Any]
    evaluate: Callable[[nn.Module], tuple[float, float]]
    seed: int


def prepare_random(subject: Subject, scope: str) -> Makers:
    """A mask drawn at random."""
    return {"random": lambda sparsity: create_random_mask(subject.model, sparsity, subject.seed, scope=scope)}


def prepare_magnitude(subject: Subject, scope: str) -> Makers:
    """Magnitudes."""
    return {MAGNITUDE: lambda sparsity: create_magnitude_mask(subject.model, sparsity, scope=scope)}


def prepare_weights(subject: Subject, scope: str) -> Makers:
    """What needs no data."""
    return {**prepare_random(subject, scope), **prepare_magnitude(subject, scope)}


def prepare_gradients(subject: Subject, scope: str) -> Makers:
    """All scores made of gradients of single samples."""
    return {
        name: lambda sparsity, scores=scores: create_importance_mask(scores, sparsity, scope=scope)  # type: ignore[misc]  # a default binds the loop's value
        for name, scores in score_by_gradients(subject, scope).items()
    }


def prepare_wanda(subject: Subject, scope: str) -> Makers:
    """Weights times the norms of their inputs."""
    scores = compute_wanda_importance(subject.model, subject.batches, num_samples=ALL)
    return {"Wanda": lambda sparsity: create_importance_mask(scores, sparsity, scope=scope)}


def prepare_grasp(subject: Subject, scope: str) -> Makers:
    """What keeps the gradient's norm; beside it the same scores without their sign, which are no method of a paper."""
    scores = compute_grasp_importance(subject.model, subject.batches, num_samples=ALL)
    sizes = derive(scores, "|w * (Hessian @ gradient)|", lambda name: scores[name].abs())
    return {
        "GraSP": lambda sparsity: create_importance_mask(scores, sparsity, scope=scope),
        "GraSP, unsigned": lambda sparsity: create_importance_mask(sizes, sparsity, scope=scope),
    }


def score_by_gradients(subject: Subject, scope: str) -> dict[str, Importance]:
    """Returns six scores from one pass over the data, which the public functions would make six times."""
    options = ScoringOptions(use_mixed_precision=False)
    formulas = [FISHER, GRADIENTS["magnitudes"], GRADIENTS["gradients"]]
    fisher, gradient, mean = score_gradients(subject.model, subject.batches, formulas, ALL, options)
    magnitude = compute_magnitude_importance(subject.model)
    taylor = derive(gradient, "mean of |gradient * w|", lambda name: gradient[name] * magnitude[name])
    saliency = derive(fisher, "saliency", lambda name: fisher[name] * (0.5 * magnitude[name].square()))
    parts = {"magnitude": magnitude, "fisher": fisher, "taylor": taylor}
    mixed = mix_ranks(parts, dict.fromkeys(parts, 1 / 3), scope)
    hybrid = derive(fisher, "hybrid", mixed.__getitem__)
    sensitivity = derive(mean, "|mean gradient * w|", lambda name: mean[name] * magnitude[name])
    return {
        "gradient": gradient,
        "Taylor": taylor,
        "Fisher": fisher,
        "saliency": saliency,
        "hybrid": hybrid,
        "SNIP": sensitivity,
    }


def derive(importance: Importance, name: str, score: Callable[[str], Tensor]) -> Importance:
    """Returns other scores of the same weights."""
    scores = {weight: score(weight) for weight in importance}
    return Importance(scores, {**importance.report, "score": name}, output_dims=importance.output_dims)


def check_against_public(subject: Subject) -> None:
    """Asserts that the public functions give the same scores, bit for bit."""
    model, batches = subject.model, subject.batches
    ours = score_by_gradients(subject, "global")
    public = {
        "gradient": compute_gradient_importance(model, batches),
        "Taylor": compute_taylor_importance(model, batches),
        "Fisher": compute_fisher_importance(model, batches),
        "saliency": compute_fisher_importance(model, batches, saliency=True),
        "hybrid": compute_hybrid_importance(model, batches),
    }
    for score, importance in public.items():
        assert all(torch.equal(ours[score][name], values) for name, values in importance.items()), score
    snip = compute_snip_importance(model, batches)  # ours are not divided by their sum
    total = sum(float(values.sum(dtype=torch.float64)) for values in ours["SNIP"].values())
    for name, values in snip.items():
        torch.testing.assert_close(ours["SNIP"][name] / total, values, rtol=1e-5, atol=0)


SOURCES: Mapping[str, Callable[[Subject, str], Makers]] = MappingProxyType(
    {
        "random": prepare_random,
        "magnitude": prepare_magnitude,
        "weights": prepare_weights,
        "gradients": prepare_gradients,
        "Wanda": prepare_wanda,
        "GraSP": prepare_grasp,
    }
)

"""Importance of each weight: magnitude, gradient, Taylor, Fisher, mixtures of them, and masks from any score."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Unpack

import torch
from torch import Tensor, nn

from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.values import GRADIENT, MAGNITUDE, SQUARE, UNIT_MAGNITUDE, UNIT_SQUARE
from lottery_tickets._core.weights import Choices, find_prunable_weights
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import order_scores, select_mask
from lottery_tickets.scores.gradient_scores import Formula, NumSamples, ScoringArguments, make_options, score_gradients
from lottery_tickets.scores.importance import Importance
from lottery_tickets.scores.ranks import compute_ranks

FISHER: Final = Formula("mean of gradient^2", SQUARE)
SALIENCY: Final = Formula("0.5 * mean of gradient^2 * w^2", SQUARE, lambda weight: 0.5 * weight.square())
TAYLOR: Final = {
    ("weight", "absolute"): Formula("mean of |gradient * w|", MAGNITUDE, torch.abs),
    ("weight", "squared"): Formula("mean of (gradient * w)^2", SQUARE, torch.square),
    ("unit", "absolute"): Formula("mean of |sum over the unit of gradient * w|", UNIT_MAGNITUDE),
    ("unit", "squared"): Formula("mean of (sum over the unit of gradient * w)^2", UNIT_SQUARE),
}
GRADIENTS: Final = {
    "magnitudes": Formula("mean of |gradient|", MAGNITUDE),
    "gradients": Formula("|mean of gradient|", GRADIENT),
}
HYBRID: Final = {
    "fisher": FISHER,
    "saliency": SALIENCY,
    "taylor": TAYLOR["weight", "absolute"],
    "gradient": GRADIENTS["magnitudes"],
}
MAGNITUDE_NAME: Final = "magnitude"


def compute_magnitude_importance(
    model: nn.Module | Mapping[str, Tensor], *, include: Choices | None = None, exclude: Choices | None = None
) -> Importance:
    """Returns the magnitude |w| of each weight (Han et al., arXiv:1506.02626).

    Args:
        model: A model, or a mapping of weights by name.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Returns:
        By parameter name a float32 tensor in the parameter's shape.

    Raises:
        ValueError: When a pattern matches nothing or nothing is left.

    Example:
        >>> compute_magnitude_importance({"weight": torch.tensor([[1.0, -2.0]])})["weight"].tolist()
        [[1.0, 2.0]]
    """
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    return Importance(
        {name: weight.tensor.detach().abs().float() for name, weight in weights.items()},
        {"score": "|w|"},
        output_dims={name: weight.output_dims for name, weight in weights.items()},
    )


def compute_fisher_importance(  # noqa: PLR0917 - the contract's signature
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    chunk_size: int | None = None,
    use_mixed_precision: bool = True,  # noqa: FBT001, FBT002 - the contract's signature
    gradient_clip: float | None = None,
    *,
    saliency: bool = False,
    kind: Labels = "empirical",
    **options: Unpack[ScoringArguments],
) -> Importance:
    """Returns the diagonal of the Fisher information: the mean over samples of the squared gradient of each weight.

    Each sample's own gradient is squared, whatever the batch size; the square of a batch's mean gradient is something
    else. A sample's loss is that of a batch which holds it alone: for a language model the mean over the tokens of one
    sequence. As a pruning score take `saliency=True`: what removing the weight costs, to second order (optimal brain
    damage); F alone says how sharply the loss bends, not what the weight is worth.

    Memory: one float32 a chosen weight, and the gradient of one sample of one layer. Time: near that of a forward and
    a backward pass of each batch. A model that cannot be taken apart by sample is run one sample at a time; `report`
    says so, and why.

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most; "auto" doubles them from 64 on until the ranking has settled.
        chunk_size: The most per-sample gradients in memory at once, counted in elements; None for what suits the device
            (never less than one sample of the largest layer). Bounds memory, changes nothing.
        use_mixed_precision: Whether float32 models on a GPU that computes in bfloat16 run under autocast; sums are
            float32 all the same. Without such a GPU nothing changes.
        gradient_clip: The largest norm of a sample's gradient over the chosen weights; longer ones are scaled down
            before anything else, and counted. Costs a second backward pass.
        saliency: Whether to return 0.5 * F * w^2.
        kind: Labels of the data ("empirical"), drawn from the model's own distribution ("sampled"), or the expectation
            over all classes ("exact"; one backward pass a class, for one prediction a sample).
        options: What all gradient scores take, see `ScoringArguments`: loss_fn, include, exclude, offload,
            standard_errors, target_sparsity, scope, tolerance, nonfinite_limit, seed, progress.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, with `report` and, if asked for, `standard_errors`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    References:
        Kirkpatrick et al., arXiv:1612.00796 (the diagonal Fisher); LeCun et al., Optimal Brain Damage, NIPS 1989.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> data = [(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1]))]
        >>> fisher = compute_fisher_importance(model, data)
        >>> fisher["weight"].shape, fisher["weight"][:, 1].tolist(), fisher.report["num_samples"]
        (torch.Size([2, 2]), [0.0, 0.0], 2)
    """
    settings = make_options(
        num_samples=num_samples,
        chunk_size=chunk_size,
        use_mixed_precision=use_mixed_precision,
        gradient_clip=gradient_clip,
        **options,
        kind=kind,
    )
    return score_gradients(model, dataloader, [SALIENCY if saliency else FISHER], settings)[0]


def compute_gradient_importance(  # noqa: PLR0917 - as Fisher's
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    chunk_size: int | None = None,
    use_mixed_precision: bool = True,  # noqa: FBT001, FBT002 - the contract's signature
    gradient_clip: float | None = None,
    *,
    average: Literal["magnitudes", "gradients"] = "magnitudes",
    **options: Unpack[ScoringArguments],
) -> Importance:
    """Returns how steeply the loss changes with each weight.

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most; "auto" doubles them from 64 on until the ranking has settled.
        chunk_size: The most per-sample gradients in memory at once, counted in elements; None for what suits the device
            (never less than one sample of the largest layer). Bounds memory, changes nothing.
        use_mixed_precision: Whether float32 models on a GPU that computes in bfloat16 run under autocast; sums are
            float32 all the same. Without such a GPU nothing changes.
        gradient_clip: The largest norm of a sample's gradient over the chosen weights; longer ones are scaled down
            before anything else, and counted. Costs a second backward pass.
        average: "magnitudes" for the mean over samples of |gradient|; "gradients" for |mean gradient|, near 0 for all
            weights of a model that is trained to the end.
        options: What all gradient scores take, see `ScoringArguments`: loss_fn, include, exclude, offload,
            standard_errors, target_sparsity, scope, tolerance, nonfinite_limit, seed, progress.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, with `report` and, if asked for, `standard_errors`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    Example:
        >>> data = [(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))]
        >>> compute_gradient_importance(nn.Linear(3, 2), data)["weight"].shape
        torch.Size([2, 3])
    """
    formula = _look_up("average", average, GRADIENTS)
    settings = make_options(
        num_samples=num_samples,
        chunk_size=chunk_size,
        use_mixed_precision=use_mixed_precision,
        gradient_clip=gradient_clip,
        **options,
    )
    return score_gradients(model, dataloader, [formula], settings)[0]


def compute_taylor_importance(  # noqa: PLR0917 - as Fisher's
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    chunk_size: int | None = None,
    use_mixed_precision: bool = True,  # noqa: FBT001, FBT002 - the contract's signature
    gradient_clip: float | None = None,
    *,
    granularity: Literal["weight", "unit"] = "weight",
    norm: Literal["absolute", "squared"] = "absolute",
    **options: Unpack[ScoringArguments],
) -> Importance:
    """Returns what removing each weight, or each unit, does to the loss, to first order and averaged over samples.

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most; "auto" doubles them from 64 on until the ranking has settled.
        chunk_size: The most per-sample gradients in memory at once, counted in elements; None for what suits the device
            (never less than one sample of the largest layer). Bounds memory, changes nothing.
        use_mixed_precision: Whether float32 models on a GPU that computes in bfloat16 run under autocast; sums are
            float32 all the same. Without such a GPU nothing changes.
        gradient_clip: The largest norm of a sample's gradient over the chosen weights; longer ones are scaled down
            before anything else, and counted. Costs a second backward pass.
        granularity: "weight" for |gradient * w| of each; "unit" for the sum of gradient * w over an output
            unit's or channel's weights first: one score for all of them.
        norm: "absolute", or "squared" as Molchanov et al. have it. Of single weights "squared" is twice the saliency
            of `compute_fisher_importance`.
        options: What all gradient scores take, see `ScoringArguments`: loss_fn, include, exclude, offload,
            standard_errors, target_sparsity, scope, tolerance, nonfinite_limit, seed, progress.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, with `report` and, if asked for, `standard_errors`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    References:
        Molchanov et al., arXiv:1906.10771.

    Example:
        >>> data = [(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))]
        >>> scores = compute_taylor_importance(nn.Linear(3, 2), data, granularity="unit")
        >>> bool((scores["weight"] == scores["weight"][:, :1]).all())
        True
    """
    formula = _look_up("granularity and norm", (granularity, norm), TAYLOR)
    settings = make_options(
        num_samples=num_samples,
        chunk_size=chunk_size,
        use_mixed_precision=use_mixed_precision,
        gradient_clip=gradient_clip,
        **options,
    )
    return score_gradients(model, dataloader, [formula], settings)[0]


def compute_hybrid_importance(  # noqa: PLR0917 - as Fisher's
    model: nn.Module,
    dataloader: Iterable[Any],
    weights: Mapping[str, float] | None = None,
    num_samples: NumSamples = 1000,
    chunk_size: int | None = None,
    use_mixed_precision: bool = True,  # noqa: FBT001, FBT002 - the contract's signature
    gradient_clip: float | None = None,
    *,
    rank_within: Literal["global", "layer", "row"] = "global",
    **options: Unpack[ScoringArguments],
) -> Importance:
    """Returns a weighted mean of several scores, each as ranks from 0 to 1: units differ, ranks can be added.

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most.
        weights: The share of each score: "magnitude", "fisher", "saliency" (0.5 * F * w^2), "taylor" (|gradient * w|),
            "gradient". Divided by their sum. None for equal shares of magnitude, fisher and taylor.
        chunk_size: The most per-sample gradients in memory at once, counted in elements; None for what suits the device
            (never less than one sample of the largest layer). Bounds memory, changes nothing.
        use_mixed_precision: Whether float32 models on a GPU that computes in bfloat16 run under autocast; sums are
            float32 all the same. Without such a GPU nothing changes.
        gradient_clip: The largest norm of a sample's gradient over the chosen weights; longer ones are scaled down
            before anything else, and counted. Costs a second backward pass.
        rank_within: What a weight's rank is among: all weights, its layer or its output. Use the scope of the mask.
        options: What all gradient scores take, see `ScoringArguments`: loss_fn, include, exclude, offload,
            standard_errors, target_sparsity, scope, tolerance, nonfinite_limit, seed, progress.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, in [0, 1], with `report`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    Example:
        >>> data = [(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))]
        >>> scores = compute_hybrid_importance(nn.Linear(3, 2), data, weights={"magnitude": 1, "fisher": 1})
        >>> scores.report["score"]
        'ranks within global: 0.5 * |w| + 0.5 * mean of gradient^2'
    """
    shares = _check_shares(weights)
    settings = make_options(
        num_samples=num_samples,
        chunk_size=chunk_size,
        use_mixed_precision=use_mixed_precision,
        gradient_clip=gradient_clip,
        **options,
    )
    parts: dict[str, Importance] = {}
    formulas = {name: HYBRID[name] for name in shares if name != MAGNITUDE_NAME}
    if formulas:
        found = score_gradients(model, dataloader, list(formulas.values()), settings)
        parts.update(zip(formulas, found, strict=True))
    if MAGNITUDE_NAME in shares:
        parts[MAGNITUDE_NAME] = compute_magnitude_importance(
            model, include=options.get("include"), exclude=options.get("exclude")
        )
    return _mix({name: parts[name] for name in shares}, shares, rank_within)


def create_importance_mask(
    importance: Mapping[str, Tensor],
    sparsity: float | None,
    *,
    scope: str = "global",
    within: Mapping[str, Tensor] | None = None,
) -> Mask:
    """Returns the mask that keeps the weights of largest score and removes exactly round(sparsity * n) of n.

    The selector is that of `create_magnitude_mask`: exact counts, equal scores kept in order of position. Scores may be
    negative, as those of GraSP and movement are: what is largest with its sign is kept.

    Args:
        importance: Scores by parameter name, from a `compute_..._importance` or of your own making.
        sparsity: The share of all weights that is removed, from 0 to 1. None only for N:M.
        scope: "global", "layer", "row", "erk", "lamp" or "N:M", as for magnitudes.
        within: An earlier mask. Only its survivors are ranked, and the result is a subset of it.

    Returns:
        A `Mask`, with how the scores were found as provenance.

    Raises:
        TypeError: When scores are not float tensors by name.
        ValueError: When the sparsity, the scope or `within` does not fit, or a score is NaN or infinite.

    Warns:
        UserWarning: When a layer loses all its weights.

    Example:
        >>> create_importance_mask({"weight": torch.tensor([[0.3, -2.0, 0.1, 0.0]])}, 0.5)["weight"].tolist()
        [[True, False, True, False]]
    """
    if not isinstance(importance, Mapping):
        raise TypeError(f"importance must map parameter names to scores, got {type(importance).__name__}")
    provenance = {"method": "importance"}
    output_dims: Mapping[str, tuple[int, ...]] = {}
    if isinstance(importance, Importance):
        provenance["score"] = importance.report.get("score", "")
        provenance["num_samples"] = str(importance.report.get("num_samples", 0))
        output_dims = importance.output_dims
    return select_mask(
        order_scores(importance),
        sparsity,
        scope=scope,
        output_dims=output_dims,
        within=within,
        provenance=provenance,
    )


def _mix(parts: Mapping[str, Importance], shares: Mapping[str, float], scope: str) -> Importance:
    first = next(iter(parts.values()))
    mixed = {name: torch.zeros_like(score) for name, score in first.items()}
    for part, importance in parts.items():
        for name, ranks in compute_ranks(importance, scope, importance.output_dims).items():
            mixed[name].add_(ranks, alpha=shares[part])
    terms = " + ".join(f"{shares[part]:g} * {importance.report['score']}" for part, importance in parts.items())
    report = max((importance.report for importance in parts.values()), key=len)
    return Importance(mixed, {**report, "score": f"ranks within {scope}: {terms}"}, output_dims=first.output_dims)


def _check_shares(weights: Mapping[str, float] | None) -> dict[str, float]:
    shares = dict.fromkeys(("magnitude", "fisher", "taylor"), 1.0) if weights is None else dict(weights)
    allowed = sorted({*HYBRID, MAGNITUDE_NAME})
    for name, share in shares.items():
        if name not in allowed:
            raise ValueError(f"weights must name scores of {', '.join(allowed)}, got {name!r}")
        if not 0 <= share < float("inf"):
            raise ValueError(f"the weight of {name!r} must be a number of at least 0, got {share!r}")
    total = sum(shares.values())
    if not total:
        raise ValueError(f"at least one weight must be above 0, got {shares}")
    return {name: share / total for name, share in shares.items() if share}


def _look_up(argument: str, key: Any, formulas: Mapping[Any, Formula]) -> Formula:  # noqa: ANN401 - a name or two
    if key not in formulas:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, formulas))}, got {key!r}")
    return formulas[key]

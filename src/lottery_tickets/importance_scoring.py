"""Importance of each weight: magnitude, gradient, Taylor, Fisher, mixtures of them, and masks from any score."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from torch import Tensor, nn

from lottery_tickets._core.checks import take_options
from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.notebooks import show_own
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.records import recorded
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import order_scores, select_mask
from lottery_tickets.scores.formulas import FISHER, GRADIENTS, HYBRID, SALIENCY, TAYLOR, find_formula
from lottery_tickets.scores.gradient_scores import NumSamples, score_gradients
from lottery_tickets.scores.importance import Importance
from lottery_tickets.scores.mixing import find_shares, mix_ranks

__dir__ = show_own(__name__)

MAGNITUDE_NAME: Final = "magnitude"


@recorded("importance", under="importance")
def compute_magnitude_importance(
    model: nn.Module | Mapping[str, Tensor],
    *,
    include: Choices | None = None,
    exclude: Choices | None = None,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns the magnitude |w| of each weight (Han et al., arXiv:1506.02626).

    Args:
        model: A model, or a mapping of weights by name.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape.

    Raises:
        ValueError: When a pattern matches nothing or nothing is left.

    Examples:
        >>> import torch
        >>> compute_magnitude_importance({"weight": torch.tensor([[1.0, -2.0]])})["weight"].tolist()
        [[1.0, 2.0]]
    """
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    scores = {name: tensor.detach().abs().float() for name, tensor in weights.tensors.items()}
    return Importance(scores, {"score": "|w|"}, output_dims=weights.output_dims)


@recorded("importance", under="importance")
def compute_fisher_importance(  # noqa: PLR0917 - promised by position, tests/test_contract.py
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    chunk_size: int | None = None,
    use_mixed_precision: bool = True,  # noqa: FBT001, FBT002 - promised by position, tests/test_contract.py
    gradient_clip: float | None = None,
    *,
    saliency: bool = False,
    kind: Labels = "empirical",
    options: ScoringOptions | None = None,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns the diagonal of the Fisher information: F = mean over samples n of (dL_n / dw)^2, for each weight w.

    Each sample's own gradient is squared, whatever the batch size; the square of a batch's mean gradient is something
    else. A sample's loss L_n is that of a batch which holds it alone: for a language model the mean over the tokens of
    one sequence. As a pruning score take `saliency=True`, 0.5 * F * w^2: what removing the weight costs, to second
    order (optimal brain damage). F alone says how sharply the loss bends, not what the weight is worth.

    Memory: one float32 a chosen weight, and the gradient of one sample of one layer. Time: near that of a forward and
    a backward pass of each batch. A model that cannot be taken apart by sample is run one sample at a time; `report`
    says so, and why. Processes that share a model each pass their own batches (docs/howto/sharded-models.md).

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most; "auto" doubles them from 64 on until the ranking has settled at
            the options' `target_sparsity`.
        chunk_size: See `ScoringOptions`.
        use_mixed_precision: See `ScoringOptions`.
        gradient_clip: See `ScoringOptions`.
        saliency: Whether to return 0.5 * F * w^2.
        kind: Labels of the data ("empirical"), drawn from the model's own distribution ("sampled"), or the expectation
            over all classes ("exact"; one backward pass a class, for one prediction a sample).
        options: How to compute; takes the place of `chunk_size`, `use_mixed_precision` and `gradient_clip`.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        seed: Of labels that are drawn, and of a loader that shuffles.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, with `report` and, if asked for, `standard_errors`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    References:
        Kirkpatrick et al., arXiv:1612.00796 (the diagonal Fisher); LeCun et al., Optimal Brain Damage, NIPS 1989.

    Examples:
        Of two classes with equal logits, dL/dw is -0.5 * x for the label's row and 0.5 * x for the other.

        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))]
        >>> compute_fisher_importance(model, data)["weight"].tolist()  # the mean of 0.5^2 and 1.5^2
        [[1.25], [1.25]]
    """
    single = ScoringOptions(chunk_size, use_mixed_precision, gradient_clip)
    chosen = take_options("options", options, single, ScoringOptions())
    if kind not in get_args(Labels):
        raise ValueError(f"kind must be one of {', '.join(map(repr, get_args(Labels)))}, got {kind!r}")
    if kind == "exact" and (chosen.standard_errors or chosen.gradient_clip is not None):
        raise ValueError("kind 'exact' has neither standard_errors nor gradient_clip; use kind 'sampled' for these")
    [importance] = score_gradients(
        model,
        dataloader,
        [SALIENCY if saliency else FISHER],
        num_samples,
        chosen,
        labels=kind,
        loss_fn=loss_fn,
        include=include,
        exclude=exclude,
        seed=seed,
        progress=progress,
    )
    return importance


@recorded("importance", under="importance")
def compute_gradient_importance(
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    *,
    average: Literal["magnitudes", "gradients"] = "magnitudes",
    options: ScoringOptions | None = None,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns how steeply the loss changes with each weight: the mean over samples n of |dL_n / dw|.

    Args:
        model: As for `compute_fisher_importance`.
        dataloader: As there.
        num_samples: As there.
        average: "magnitudes" for the mean over samples of |dL_n / dw|; "gradients" for |mean of dL_n / dw|, near 0 for
            all weights of a model that is trained to the end.
        options: How to compute.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        seed: Of a loader that shuffles.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, with `report` and, if asked for, `standard_errors`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    Examples:
        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)  # gradients of the first row: -0.5 and 1.5
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))]
        >>> compute_gradient_importance(model, data)["weight"].tolist()
        [[1.0], [1.0]]
        >>> compute_gradient_importance(model, data, average="gradients")["weight"].tolist()
        [[0.5], [0.5]]
    """
    [importance] = score_gradients(
        model,
        dataloader,
        [find_formula("average", average, GRADIENTS)],
        num_samples,
        options or ScoringOptions(),
        loss_fn=loss_fn,
        include=include,
        exclude=exclude,
        seed=seed,
        progress=progress,
    )
    return importance


@recorded("importance", under="importance")
def compute_taylor_importance(
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    *,
    granularity: Literal["weight", "unit"] = "weight",
    norm: Literal["absolute", "squared"] = "absolute",
    options: ScoringOptions | None = None,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns what removing each weight does to the loss, to first order: the mean over samples n of |w * dL_n / dw|.

    Of a unit (one output of a weight) it is the mean over samples of |sum over its weights of w * dL_n / dw|.

    Args:
        model: As for `compute_fisher_importance`.
        dataloader: As there.
        num_samples: As there.
        granularity: "weight" for each weight by itself; "unit" for one score for all weights of an output unit or
            channel.
        norm: "absolute", or "squared" for (...)^2 in place of |...| as Molchanov et al. have it. Of single weights
            "squared" is twice the saliency of `compute_fisher_importance`.
        options: How to compute.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        seed: Of a loader that shuffles.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, with `report` and, if asked for, `standard_errors`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    References:
        Molchanov et al., arXiv:1906.10771.

    Examples:
        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)  # equal logits, so gradients are -0.5 and 1.5 in the first row
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))]
        >>> compute_taylor_importance(model, data)["weight"].tolist()
        [[2.0], [2.0]]
    """
    [importance] = score_gradients(
        model,
        dataloader,
        [find_formula("granularity and norm", (granularity, norm), TAYLOR)],
        num_samples,
        options or ScoringOptions(),
        loss_fn=loss_fn,
        include=include,
        exclude=exclude,
        seed=seed,
        progress=progress,
    )
    return importance


@recorded("importance", under="importance")
def compute_hybrid_importance(
    model: nn.Module,
    dataloader: Iterable[Any],
    weights: Mapping[str, float] | None = None,
    num_samples: NumSamples = 1000,
    *,
    rank_within: Literal["global", "layer", "row"] = "global",
    options: ScoringOptions | None = None,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns sum over scores s of share_s * rank_s(w): a weighted mean of several scores, each as ranks from 0 to 1.

    The scores themselves have different units and cannot be added; their ranks can.

    Args:
        model: As for `compute_fisher_importance`.
        dataloader: As there.
        weights: The share of each score: "magnitude", "fisher", "saliency" (0.5 * F * w^2), "taylor" (|gradient * w|),
            "gradient". Divided by their sum. None for equal shares of magnitude, fisher and taylor.
        num_samples: As for `compute_fisher_importance`.
        rank_within: What a weight's rank is among: all weights, its layer or its output. Use the scope of the mask.
        options: How to compute.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        seed: Of a loader that shuffles.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, in [0, 1], with `report`.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, or too many gradients are not finite.

    Examples:
        >>> import torch
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
        >>> data = [(torch.eye(2), torch.tensor([0, 1]))]
        >>> scores = compute_hybrid_importance(model, data, weights={"magnitude": 1})
        >>> scores["weight"].tolist(), scores.report["score"]
        ([[0.125, 0.375], [0.625, 0.875]], 'ranks within global: 1 * |w|')
    """
    shares = find_shares(weights, (*HYBRID, MAGNITUDE_NAME))
    parts: dict[str, Importance] = {}
    formulas = {name: HYBRID[name] for name in shares if name != MAGNITUDE_NAME}
    if formulas:
        found = score_gradients(
            model,
            dataloader,
            list(formulas.values()),
            num_samples,
            options or ScoringOptions(),
            loss_fn=loss_fn,
            include=include,
            exclude=exclude,
            seed=seed,
            progress=progress,
        )
        parts.update(zip(formulas, found, strict=True))
    if MAGNITUDE_NAME in shares:
        parts[MAGNITUDE_NAME] = compute_magnitude_importance(model, include=include, exclude=exclude)
    return mix_ranks({name: parts[name] for name in shares}, shares, rank_within)


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

    Examples:
        >>> import torch
        >>> create_importance_mask({"weight": torch.tensor([[0.3, -2.0, 0.1, 0.0]])}, 0.5)["weight"].tolist()
        [[True, False, True, False]]
    """
    if not isinstance(importance, Mapping):
        raise TypeError(f"importance must map parameter names to scores, got {type(importance).__name__}")
    provenance = {"method": "importance"}
    output_dims = {}
    if isinstance(importance, Importance):
        provenance["score"] = importance.report.get("score", "")
        provenance["num_samples"] = str(importance.report.get("num_samples", 0))
        output_dims = importance.output_dims
    return select_mask(
        order_scores(importance, output_dims), sparsity, scope=scope, within=within, provenance=provenance
    )

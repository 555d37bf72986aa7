"""Scores of the literature that need data: SNIP and GraSP at initialisation, Wanda for trained models."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import cut_batches, move_batch
from lottery_tickets._core.checks import check_any_samples, check_count
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.gradients.curvature import Curvature
from lottery_tickets._core.gradients.inputs import InputSquares, watch_inputs
from lottery_tickets._core.gradients.options import Offload, ScoringOptions
from lottery_tickets._core.gradients.values import GRADIENT
from lottery_tickets._core.measuring.running import evaluating, see_gathered
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.records import recorded
from lottery_tickets._core.sharding.data_parallel import find_readers, share_out
from lottery_tickets._core.sharding.dtensors import see_local, wrap_like
from lottery_tickets._core.sharding.fsdp import announcing
from lottery_tickets._core.sharding.in_step import InStep
from lottery_tickets._core.sharding.whole_parameters import computing_whole
from lottery_tickets._core.weights import Weight, Weights
from lottery_tickets.scores.gradient_scores import MODE, SAMPLE, Formula, NumSamples, check_model, score_gradients
from lottery_tickets.scores.importance import Importance, ImportanceReport

CONNECTION_SENSITIVITY: Final = Formula(
    "|w * mean of gradient| / sum over all weights", GRADIENT, lambda weight: weight
)

WANDA: Final = "|w| * norm of inputs"


class CalibrationReport(ImportanceReport, total=False):
    """How GraSP or Wanda scores were found.

    Attributes:
        temperature: That logits were divided by.
        advised_scope: For `create_importance_mask`: what the paper compares with what.
        num_idle_weights: Weights whose inputs were zero in every sample (of an expert that no token was sent to), so
            that their score 0 says nothing of them.
    """

    temperature: float
    advised_scope: str
    num_idle_weights: int


@recorded("importance", under="importance")
def compute_snip_importance(
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: NumSamples = 1000,
    *,
    options: ScoringOptions | None = None,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns SNIP's sensitivity |w * g| over the sum of all |w * g|, with g the mean gradient over samples.

    It is the size of the derivative of the loss by a factor c before the weight, at c = 1. Unlike Taylor importance,
    which averages magnitudes over samples, samples that pull in opposite directions cancel. The paper scores a network
    at its initialisation, with one batch, and compares all weights with each other (scope "global").

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most; "auto" doubles them from 64 on until the ranking has settled at
            the options' `target_sparsity`.
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
        ValueError: When an argument is out of range, the data is empty, too many gradients are not finite, or all are
            zero.

    References:
        Lee et al., arXiv:1810.02340.

    Examples:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> data = [(torch.tensor([[1.0, 3.0]]), torch.tensor([0]))]  # equal logits: g is -x / 2 and x / 2
        >>> compute_snip_importance(model, data)["weight"].tolist()
        [[0.125, 0.375], [0.125, 0.375]]
    """
    [importance] = score_gradients(
        model,
        dataloader,
        [CONNECTION_SENSITIVITY],
        num_samples,
        options or ScoringOptions(),
        loss_fn=loss_fn,
        include=include,
        exclude=exclude,
        seed=seed,
        progress=progress,
    )
    scores = Weights.from_tensors(importance)
    here = [see_local(score.tensor).sum(dtype=torch.float64) for score in scores.values() if score.is_counted]
    total = sum(scores.together.gather(lambda: sum(map(float, here))))
    if not total:
        raise ValueError("a score must not be zero for SNIP to rank, but all are: the gradients or the weights vanish")
    for tensor in (*importance.values(), *(importance.standard_errors or {}).values()):
        see_local(tensor).div_(total)
    return importance


@recorded("importance", under="importance")
def compute_grasp_importance(
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: int = 1000,
    *,
    temperature: float = 200.0,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns GraSP's signed score w * (H g): how much of the gradient's norm removing each weight would cost.

    g is the gradient of the mean loss over all samples, H its Hessian. Removing weight w changes |g|^2 by -2 * w * (Hg)
    to first order. The paper calls S = -w * (Hg) the score and removes the weights of largest S; here the sign is
    turned, so that `create_importance_mask`, which keeps the largest scores with their sign, keeps what the paper
    keeps. All weights are compared with each other (scope "global"), of a network at its initialisation.

    Each cross-entropy that the loss calls sees its logits divided by `temperature`, 200 in the authors' code, and the
    mean loss is the mean over samples of each sample's own, however they are batched. Of other losses, those of batches
    are averaged, each weighted by its samples. Biases, norms and all weights that are not chosen are constants.

    Memory: two float32 a chosen weight, the batches, which both passes over the data need, and the graph of a double
    backward pass of one batch (attention computed step by step); use smaller batches to bound it. Time: that of about
    five backward passes. Of a sharded model each process holds all of this, and the weights whole, meanwhile.

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was. In bfloat16 the product
            with the Hessian has few digits.
        dataloader: Batches: dicts, pairs (inputs, class indices), or anything with `loss_fn`. The first dimension of
            their tensors numbers the samples.
        num_samples: How many samples to use, at most; the authors take 10 to 25 a class.
        temperature: Of cross-entropies; 1 leaves any loss as it is.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        seed: Of a loader that shuffles.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape, of both signs.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, a loss or a score is not finite, or a
            temperature has no cross-entropy to act on.

    References:
        Wang et al., arXiv:2002.07376.

    Examples:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> scores = compute_grasp_importance(model, [(torch.ones(4, 3), torch.tensor([0, 1, 0, 0]))])
        >>> scores["0.weight"].shape, scores.report["score"]
        (torch.Size([8, 3]), 'w * (Hessian @ gradient)')
    """
    limit = check_count("num_samples", num_samples)
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive number, got {temperature!r}")
    check_model(model)
    weights, readers = find_prunable_weights(model, include=include, exclude=exclude), find_readers(model)
    step = InStep(readers.together, readers.alike)

    def compute() -> tuple[dict[str, Tensor], int, int]:
        here = find_prunable_weights(model, include=include, exclude=exclude).tensors
        curvature = Curvature(model, here, loss_fn, float(temperature))
        with ordered_by(dataloader, derive_seed(seed, "loader")), evaluating(model):
            batches = list(cut_batches(dataloader, share_out(limit, readers.apart)))
            if readers.alike.place:  # the first of those that see the same samples computes for them
                batches = []
            num_samples = step.meet("the samples", sum(size for _, size in batches))
            check_any_samples(num_samples)
            with tqdm(total=2 * len(batches), unit="batch", disable=not progress) as bar:
                gradient = curvature.average_gradient(batches, num_samples, bar.update)
                step.add_up_("the gradient", gradient.values())
                scores = curvature.average_product(batches, num_samples, gradient, bar.update)
                step.add_up_("the products", scores.values())
        return scores, num_samples, step.meet("the batches", len(batches))

    with computing_whole(model):  # the hooks of FSDP allow no second backward pass
        products, num_samples, num_batches = step.run(compute)
    scores = {
        name: _cut(weights[name], product).mul_(see_local(weights[name].tensor).detach())
        for name, product in products.items()
    }
    report: CalibrationReport = {
        "score": "w * (Hessian @ gradient)",
        "sample": SAMPLE,
        "num_samples": num_samples,
        "num_batches": num_batches,
        "labels": "empirical",
        "mode": MODE,
        "temperature": float(temperature),
        "advised_scope": "global",
    }
    return _make_importance(scores, weights, report)


@recorded("importance", under="importance")
def compute_wanda_importance(
    model: nn.Module,
    dataloader: Iterable[Any],
    num_samples: int = 128,
    *,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    offload: Offload | None = None,
    seed: int = 42,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns Wanda's score |W_ij| * ||X_j||: the weight times the norm of its input over all calibration tokens.

    The paper compares weights within one output: `create_importance_mask(scores, 0.5, scope="row")`, or scope "2:4".
    Comparing over a layer or the whole model is something else, and worse.

    The inputs are those of the dense model, seen in one pass; the authors' code prunes block after block and feeds each
    what the pruned blocks before it give. For that, score and prune one block at a time with `include=`. Every position
    of every sample counts, padding too: give sequences without any. The input of a convolution's weight is what its
    kernel place sees, padding zeros included; of an expert's, the tokens that were sent to it.

    Forward passes only, so a model too large to train can be scored. Memory: one float32 a chosen weight. Several
    processes: as for `compute_fisher_importance`.

    Args:
        model: Any model; it is run in evaluation mode and comes back bit for bit as it was.
        dataloader: Batches: dicts for `model(**batch)`, tensors or pairs (inputs, anything) for `model(inputs)`, or
            anything with `loss_fn`. The first dimension of their tensors numbers the samples.
        num_samples: How many samples to use, at most; the paper takes 128 sequences.
        loss_fn: `loss_fn(model, batch)` runs the model on batches of other kinds; what it returns is not used.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        offload: "cpu" puts the scores of a model on a GPU into CPU memory, one weight at a time; changes nothing else.
        seed: Of a loader that shuffles.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape. In the report `advised_scope`, and
        `num_idle_weights`, whose inputs were zero throughout.

    Raises:
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the data is empty, inputs are not finite, or those of a weight
            cannot be found.

    References:
        Sun et al., arXiv:2306.11695.

    Examples:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> model.load_state_dict({"weight": torch.tensor([[-1.0, 2.0]])})
        <All keys matched successfully>
        >>> compute_wanda_importance(model, [torch.tensor([[3.0, 1.0], [4.0, 0.0]])])["weight"].tolist()
        [[5.0, 2.0]]
    """
    limit = check_count("num_samples", num_samples)
    if offload not in {None, "cpu"}:
        raise ValueError(f"offload must be None or 'cpu', got {offload!r}")
    check_model(model)
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    readers = find_readers(model)
    step, limit = InStep(readers.together, readers.alike), share_out(limit, readers.apart)
    bar = tqdm(total=limit, unit="sample", disable=not progress)

    def compute() -> tuple[dict[str, Tensor], int, int, int]:
        sizes: list[int] = []
        inputs = InputSquares(see_gathered(model, weights.tensors))
        with ordered_by(dataloader, derive_seed(seed, "loader")), evaluating(model), bar:
            for (batch, size), is_own in step.go_on(cut_batches(dataloader, limit)):
                step.check_alike((batch, is_own))
                counts = is_own and not step.alike.place  # of those that see the same samples one counts them
                counted = inputs if counts else InputSquares(inputs.weights)
                watch_inputs(model, counted, move_batch(batch, inputs.device), loss_fn)
                sizes.extend([size] if counts else [])
                bar.update(size if is_own else 0)
        num_seen = step.meet("the samples", sum(sizes))
        check_any_samples(num_seen)
        return *_join_inputs(inputs, weights, step, offload), num_seen, step.meet("the batches", len(sizes))

    with announcing(unwrap(model), step.meet):
        scores, num_idle, num_seen, num_batches = step.run(compute)
    report: CalibrationReport = {
        "score": WANDA,
        "sample": "one entry of the batch's first dimension",
        "num_samples": num_seen,
        "num_batches": num_batches,
        "mode": MODE,
        "advised_scope": "row",
        "num_idle_weights": num_idle,
    }
    return _make_importance(scores, weights, report)


def _join_inputs(
    inputs: InputSquares, weights: Weights, step: InStep, offload: Offload | None
) -> tuple[dict[str, Tensor], int]:
    """Returns Wanda's scores of what lies here, from the inputs that all processes have seen; and the idle weights."""
    unused_here = inputs.find_unused()
    unused = [name for name in weights if step.all(name in unused_here)]
    if unused:
        raise ValueError(
            f"the inputs of every weight must be found, but the forward passes do not use {', '.join(unused)}, or only "
            "under no_grad or in compiled code; leave them out with exclude="
        )
    scores, num_idle = {}, 0
    for name, weight in weights.items():
        total = inputs.compute_total(name)
        step.add_up_(f"the inputs of {name}", [total])
        num_idle += int((total == 0).sum())
        score = _cut(weight, total).sqrt_().mul_(see_local(weight.tensor).detach().abs())
        scores[name] = score if offload is None else score.cpu()
    return scores, num_idle


def compute_wanda_score(inputs: InputSquares, name: str) -> Tensor:
    """Returns Wanda's score of one weight, float32, once all inputs have been seen.

    Raises:
        ValueError: When the weight was not used, or the score is not finite.
    """
    if name in inputs.find_unused():
        raise ValueError(
            f"the inputs of every weight must be found, but the forward passes do not use {name}, or only under "
            "no_grad or in compiled code; leave it out with exclude="
        )
    score = inputs.compute_total(name).sqrt_().mul_(inputs.weights[name].abs())
    _check_finite(name, score)
    return score.float()


def _cut(weight: Weight, whole: Tensor) -> Tensor:
    """Returns what lies here of numbers that each process has for a whole weight."""
    return whole if weight.piece is None else weight.piece.cut(whole).clone()


def _check_finite(name: str, score: Tensor) -> None:
    if not bool(score.isfinite().all()):
        raise ValueError(f"scores must be finite, but those of {name!r} are not; look for NaN in the data")


def _make_importance(scores: Mapping[str, Tensor], weights: Weights, report: CalibrationReport) -> Importance:
    for name, score in scores.items():
        _check_finite(name, score)
    return Importance(
        {name: wrap_like(score.float(), weights[name].tensor) for name, score in scores.items()},
        report,
        output_dims=weights.output_dims,
    )

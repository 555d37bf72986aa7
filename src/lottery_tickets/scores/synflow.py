"""SynFlow: pruning without data, by what flows through each weight, in many small rounds."""

from collections.abc import Mapping, Sequence
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.determinism import derive_seed, seeded
from lottery_tickets._core.measuring.running import differentiate, evaluating, run_with
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.records import recorded
from lottery_tickets._core.selection.scope_names import check_sparsity
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.sharding.dtensors import cut_like
from lottery_tickets._core.sharding.whole_parameters import computing_whole
from lottery_tickets._core.weights import Weights
from lottery_tickets.scores.gradient_scores import MODE
from lottery_tickets.scores.importance import Importance, ImportanceReport


class SynflowReport(ImportanceReport, total=False):
    """How synaptic flow was found.

    Attributes:
        sparsity: That the scores are for.
        num_rounds: Times that scores were computed and weights removed.
        advised_scope: For `create_importance_mask`.
    """

    sparsity: float
    num_rounds: int
    advised_scope: str


@recorded("importance", under="importance")
def compute_synflow_importance(
    model: nn.Module,
    sample_or_input_shape: Tensor | Sequence[Any],
    sparsity: float,
    num_rounds: int = 100,
    *,
    include: Choices | None = None,
    exclude: Choices | None = None,
    progress: bool = False,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> Importance:
    """Returns the synaptic flow w * dR/dw through each weight that survives pruning in rounds, and 0 for all others.

    R is the sum of the outputs for an input of ones, with everything in the state dict replaced by its absolute value.
    Each of the rounds r = 1 to `num_rounds` computes the flow through the weights that are left and keeps the largest,
    a share (1 - sparsity)^(r / num_rounds) of all; so no layer is emptied while another has weights to spare.
    `create_importance_mask(scores, sparsity)` with the same sparsity and scope "global" is the mask of the last round.
    The scores are those of the last round over the largest of them; another sparsity needs scores of its own.

    Everything is computed in float64, because products over many layers leave float32's range. No data is needed.
    Memory: three float64 copies of the model, of a sharded one in each process. Time: one forward and one backward pass
    of one input a round.

    Args:
        model: Any model of floating-point inputs that returns a tensor, or has its output in `.logits`. It runs in
            evaluation mode, as in the authors' code, and comes back bit for bit as it was.
        sample_or_input_shape: A batch of inputs, a pair (inputs, targets), or the shape of one input without its batch
            dimension, such as (3, 32, 32). Only the shape is used.
        sparsity: The share of all chosen weights that is removed, from 0 to below 1.
        num_rounds: 100 in the paper; with 1 the mask is that of a single scoring, and layers may collapse.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        progress: Whether to show a bar.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        By parameter name a float32 tensor in the parameter's shape: 0 where pruned, above 0 and at most 1 elsewhere.

    Raises:
        TypeError: When the model, the input or the output is of another type.
        ValueError: When an argument is out of range, the inputs are no floats (token ids), or nothing flows.

    References:
        Tanaka et al., arXiv:2006.05467.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> scores = compute_synflow_importance(model, (4,), 0.75)
        >>> sum(int((score > 0).sum()) for score in scores.values()), scores.report["score"]
        (12, 'synaptic flow')
    """
    check_count("num_rounds", num_rounds)
    if check_sparsity(sparsity, "global") == 1:
        raise ValueError("sparsity must be below 1 for SynFlow, which ranks what is left; got 1")
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, through which ones can flow, got {type(model).__name__}")
    weights = find_prunable_weights(model, include=include, exclude=exclude)
    is_shown = progress and not weights.together.place
    with computing_whole(model), seeded(derive_seed(0, "synflow")), evaluating(model):
        here = find_prunable_weights(model, include=include, exclude=exclude)
        ones = _make_ones(sample_or_input_shape, next(iter(here.values())).device)
        scores, bits = _prune_in_rounds(model, here, ones, sparsity, num_rounds, progress=is_shown)
    report: SynflowReport = {
        "score": "synaptic flow",
        "mode": MODE,
        "precision": "float64",
        "sparsity": float(sparsity),
        "num_rounds": int(num_rounds),
        "advised_scope": "global",
    }
    return Importance(
        {name: cut_like(score, weights[name].tensor) for name, score in _rank_survivors(scores, bits).items()},
        report,
        output_dims=weights.output_dims,
    )


def _prune_in_rounds(
    model: nn.Module,
    weights: Weights,
    ones: Tensor,
    sparsity: float,
    num_rounds: int,
    *,
    progress: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the flow through each weight in the last round, and the packed bits of what that round keeps."""
    absolute = _take_absolute(model)
    bits: dict[str, Tensor] | None = None
    scores: dict[str, Tensor] = {}
    for i in tqdm(range(1, num_rounds + 1), unit="round", disable=not progress):
        # Exact in the last round; before it, rounding must not remove more than the last round may.
        share = sparsity if i == num_rounds else min(sparsity, 1 - (1 - sparsity) ** (i / num_rounds))
        if bits is not None:
            for name in weights:
                absolute[name] *= unpack_bits(bits[name], absolute[name].shape).to(ones.device)
        scores = _compute_flow(model, {name: absolute[name] for name in weights}, absolute, ones)
        if not any(bool(score.any()) for score in scores.values()):
            raise ValueError(
                f"something must flow through the network to be ranked, but in round {i} nothing does; "
                "use more rounds or less sparsity, and look for layers whose weights are all zero"
            )
        bits = select_in_scope(weights.with_values(scores), share, scope="global", within=bits)
    return scores, bits or {}


def _compute_flow(
    model: nn.Module, weights: Mapping[str, Tensor], absolute: Mapping[str, Tensor], ones: Tensor
) -> dict[str, Tensor]:
    """Returns |w * dR/dw| for each of the weights, where R is the sum of the outputs."""
    handles = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        try:
            output = run_with(model, {**absolute, **handles}, lambda module: module(ones))
        except Exception as error:
            error.add_note(
                f"SynFlow runs the model in float64 on ones of shape {tuple(ones.shape)}; "
                "a model of other inputs, such as token ids, cannot be scored this way"
            )
            raise
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the model must return a tensor or have .logits in its output, got {type(output).__name__}"
            )
        total = output.sum()
        if not total.requires_grad:
            raise ValueError("the outputs must depend on a chosen weight; does the model run under no_grad?")
        gradients = differentiate(total, handles)
    scores = {}
    for name, weight in weights.items():
        scores[name] = (gradients[name] * weight).abs_() if name in gradients else torch.zeros_like(weight)
        if not bool(scores[name].isfinite().all()):
            raise ValueError(f"the flow through {name!r} must be finite, but overflows float64; scale the weights down")
    return scores


def _take_absolute(model: nn.Module) -> dict[str, Tensor]:
    """Returns the floating-point parameters and buffers in float64; the absolute values of those in the state."""
    module = unwrap(model)
    state = module.state_dict()
    absolute = {}
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if tensor.is_floating_point():
            wide = tensor.detach().double()
            absolute[clean_name(name)] = wide.abs() if name in state else wide.clone()
    return absolute


def _rank_survivors(scores: Mapping[str, Tensor], bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns scores over the largest of them, in float32: 0 where pruned, and nowhere else."""
    largest = max(float(score.max()) for score in scores.values() if score.numel())
    least = torch.finfo(torch.float32).tiny
    ranked = {}
    for name, score in scores.items():
        kept = unpack_bits(bits[name], score.shape).to(score.device)
        ranked[name] = torch.where(kept, (score / largest).float().clamp_(min=least), 0.0)
    return ranked


def _make_ones(given: Any, device: torch.device) -> Tensor:  # noqa: ANN401 - checked here
    """Returns one input of ones, float64.

    Raises:
        TypeError: When neither inputs nor a shape are given.
        ValueError: When the inputs are no floats, or a size is less than 1.
    """
    if isinstance(given, Mapping):
        raise TypeError(
            "SynFlow needs a tensor of inputs or the shape of one, got a mapping; for a model of several inputs, or of "
            "token ids, take another score"
        )
    if isinstance(given, Sequence) and given and isinstance(given[0], Tensor):
        return _make_ones(given[0], device)
    if isinstance(given, Tensor):
        if not given.is_floating_point() or not given.ndim:
            raise ValueError(
                "SynFlow sends ones through the model, so its inputs must be a batch of floats, got "
                f"{given.dtype} of shape {tuple(given.shape)}; for a model of token ids take another score"
            )
        return torch.ones(1, *given.shape[1:], dtype=torch.float64, device=device)
    if not isinstance(given, Sequence) or not all(isinstance(size, Integral) for size in given):
        raise TypeError(f"SynFlow needs a tensor of inputs or the shape of one such as (3, 32, 32), got {given!r}")
    sizes = [check_count("each size of the input shape", size) for size in given]
    return torch.ones(1, *sizes, dtype=torch.float64, device=device)

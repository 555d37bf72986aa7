"""Wanda's mask of a checkpoint that need not fit into memory: each layer is pruned as soon as its inputs are known."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import cut_batches, move_batch
from lottery_tickets._core.checks import check_any_samples, check_count
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.gradients.inputs import InputSquares, run_batch, watch_inputs
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices
from lottery_tickets._core.selection.scope_names import check_sparsity, parse_n_of_m
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.weights import TensorWeight, Weights
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.checkpoints.decoder import StreamedDecoder
from lottery_tickets.importance_scoring import create_importance_mask
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.selector import describe_mask
from lottery_tickets.scores.snip_grasp_wanda import (
    WANDA,
    compute_wanda_importance,
    compute_wanda_score,
)

WITHIN_A_LAYER: Final = ("row", "layer")


def create_wanda_mask(
    model: nn.Module | CheckpointWeights,
    dataloader: Iterable[Any],
    sparsity: float | None,
    *,
    scope: str = "row",
    num_samples: int = 128,
    loss_fn: LossFunction | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    seed: int = 42,
    progress: bool = False,
) -> Mask:
    """Returns the mask that keeps the weights of largest |W_ij| * ||X_j||, the norm over all calibration tokens.

    It is `create_importance_mask(compute_wanda_importance(model, dataloader, num_samples), sparsity, scope=scope)`, bit
    for bit, but the scores of all weights are never in memory. A `CheckpointWeights` need not fit into memory either:
    its decoder is run layer by layer, as by `compute_performance`, and the files are read once.

    Args:
        model: A model, which comes back bit for bit as it was, or a `CheckpointWeights` of a causal language model that
            transformers knows.
        dataloader: Batches, as for `compute_wanda_importance`. For a checkpoint they are held in memory.
        sparsity: The share that is removed, from 0 to 1. None only for N:M.
        scope: What is compared with what: "row", as the paper has it, "layer" or "N:M".
        num_samples: How many samples to use, at most.
        loss_fn: `loss_fn(model, batch)` runs the model on batches of other kinds, of a checkpoint once.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.
        dtype: What the weights of a checkpoint are converted to; None for what its configuration says.
        device: Where a checkpoint is run; the CPU when None.
        seed: Of a loader that shuffles.
        progress: Whether to show a bar.

    Returns:
        A `Mask`, with how the scores were found as provenance.

    Raises:
        OSError: When a file of the checkpoint cannot be read.
        TypeError: When the model refuses a batch, or an argument is of another type.
        ValueError: When an argument is out of range, the scope compares weights of several layers, the data is empty,
            inputs are not finite or cannot be found, or the model cannot be run layer by layer.
        ModuleNotFoundError: When a checkpoint is given and transformers is not installed.

    Warns:
        UserWarning: When a layer loses all its weights.

    References:
        Sun et al., arXiv:2306.11695.

    Examples:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> model.load_state_dict({"weight": torch.tensor([[-1.5, 2.0]])})
        <All keys matched successfully>
        >>> create_wanda_mask(model, [torch.tensor([[3.0, 1.0], [4.0, 0.0]])], 0.5)["weight"].tolist()
        [[True, False]]
    """
    share = check_sparsity(sparsity, scope)
    limit = check_count("num_samples", num_samples)
    if scope not in WITHIN_A_LAYER and parse_n_of_m(scope) is None:
        raise ValueError(
            f"scope must be one of 'row', 'layer' or 'N:M', got {scope!r}: it compares weights of several layers, "
            "and needs all scores at once; for that use compute_wanda_importance and create_importance_mask"
        )
    if not isinstance(model, CheckpointWeights):
        options: dict[str, Any] = {"loss_fn": loss_fn, "include": include, "exclude": exclude, "seed": seed}
        scores = compute_wanda_importance(model, dataloader, limit, **options, progress=progress)
        return create_importance_mask(scores, share, scope=scope)
    with ordered_by(dataloader, derive_seed(seed, "loader")):
        cut = list(cut_batches(dataloader, limit))
    check_any_samples(len(cut))
    place = torch.device(device or "cpu")

    def forward(module: nn.Module, batch: object) -> None:
        run_batch(module, move_batch(batch, place), loss_fn)

    chosen = model.find_prunable(include, exclude)
    decoder = StreamedDecoder(model, [batch for batch, _ in cut], forward, dtype=dtype, device=place)

    def watch(module: nn.Module, inputs: InputSquares, batch: object) -> None:
        watch_inputs(module, inputs, move_batch(batch, place), loss_fn)

    bits: dict[str, Tensor] = {}
    with tqdm(total=len(chosen), unit="weight", disable=not progress) as bar:
        for name, score in _score(decoder, decoder.find_parameters(model.find_places(chosen.shapes)), watch):
            part = Weights([TensorWeight(name, score, chosen[name].output_dims)])
            bits |= select_in_scope(part, share, scope=scope)
            bar.update()
    provenance = {
        "method": "importance",
        "score": WANDA,
        "num_samples": str(sum(size for _, size in cut)),
        "sparsity": share,
        "scope": scope,
    }
    return describe_mask({name: bits[name] for name in chosen}, chosen, provenance)


def _score(
    decoder: StreamedDecoder,
    parameters: Mapping[str, str],
    watch: Callable[[nn.Module, InputSquares, Any], None],
) -> Iterator[tuple[str, Tensor]]:
    """Yields chosen weights with their scores, those of each layer while it is in memory.

    Args:
        decoder: Not yet walked.
        parameters: By the name of a weight that of its parameter in the decoder's model.
        watch: Runs the model on a batch and adds up the squares of inputs.
    """
    inside = {
        name: layer for name in parameters for layer in decoder.layers if parameters[name].startswith(f"{layer}.")
    }
    for layer in decoder.walk():
        names = [name for name in parameters if inside.get(name) == layer]
        inputs = InputSquares({parameters[name]: decoder.model.get_parameter(parameters[name]) for name in names})
        decoder.carry(partial(_watch_in_turn, watch, inputs))
        yield from ((name, compute_wanda_score(inputs, parameters[name])) for name in names)
        inputs.let_go()  # before the next layer is loaded
    if outside := [name for name in parameters if name not in inside]:
        with decoder.at_the_end() as replay:
            inputs = InputSquares({parameters[name]: decoder.model.get_parameter(parameters[name]) for name in outside})
            for batch in replay:
                watch(decoder.model, inputs, batch)
            yield from ((name, compute_wanda_score(inputs, parameters[name])) for name in outside)


def _watch_in_turn(
    watch: Callable[[nn.Module, InputSquares, Any], None], inputs: InputSquares, model: nn.Module, batch: object
) -> None:
    watch(model, inputs, batch)

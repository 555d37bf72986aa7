"""Putting a mask on a model: for one look (`masked`), once (`apply_mask`), or for good while it trains (`hold_mask`).

The model is never wrapped: parameters keep their names, their identity and their storage.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.measuring.running import uncompiled
from lottery_tickets._core.measuring.stand_ins import ReplacedReads
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.sharding.dtensors import see_local, wrap_like
from lottery_tickets._core.sharding.fsdp import gathering_others, list_gathered
from lottery_tickets._core.weights import READERS, Weight, WeightSource
from lottery_tickets.masks.fitting import fit_mask
from lottery_tickets.masks.guard import find_guard, hang_guards, take_guards_off
from lottery_tickets.masks.holder import Holder
from lottery_tickets.masks.mask import Mask, as_mask

Others = Literal["zero", "frozen"]

WEIGHTS_PER_BLOCK: Final = 1 << 24

logger = logging.getLogger(__name__)


def apply_mask(
    model: nn.Module | WeightSource, mask: Mapping[str, Tensor], *, output: str | Path | None = None
) -> None:
    """Zeroes the pruned weights of a model once, in place, or those of a checkpoint in a new one; returns nothing.

    A new checkpoint has the files, headers and index of the old one, and what lies beside them but for weights in other
    formats. It is written tensor by tensor and appears whole; a call that was stopped goes on where it was.

    Args:
        model: The model to change, or a `CheckpointWeights`, which stays as it is.
        mask: By parameter name, True where a weight is kept. A mask that names its base (`name_base`) is applied to a
            checkpoint of this base only.
        output: Where the new checkpoint goes: a folder, or a file where the old one is a file alone; there must be
            nothing.

    Raises:
        OSError: When the new checkpoint cannot be written, or the disk is full.
        ValueError: When the mask does not fit the model, there is something at `output`, the checkpoint changes
            meanwhile, or is not the mask's base.
        TypeError: When a checkpoint has no `output`, or a model has one.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> apply_mask(model, {"weight": torch.tensor([[True, False]])})
        >>> model.weight[0, 1].item()
        0.0
    """
    checked = as_mask(mask)
    if isinstance(model, WeightSource) != (output is not None):
        raise TypeError("a checkpoint must have output=, where the new one goes; a model, which is changed, has none")
    if isinstance(model, WeightSource):
        model.write_pruned(checked, Path(str(output)))
        return
    parameters, placed = fit_mask(model, checked)
    for name, parameter in parameters.items():
        local = see_local(parameter)
        zero_pruned_(local, placed.bits[name].to(local.device))


def compute_sparsity(
    model_or_mask: nn.Module | Mapping[str, Tensor] | WeightSource,
    *,
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> float:
    """Returns the fraction of prunable weights that are zero in a model, or that a mask removes, in [0, 1].

    Args:
        model_or_mask: A model, a `CheckpointWeights`, or a mask.
        include: Replaces the default choice of a model's weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Examples:
        >>> compute_sparsity({"weight": torch.tensor([[True, False]])})
        0.5
    """
    if not isinstance(model_or_mask, nn.Module | WeightSource):
        return as_mask(model_or_mask).sparsity
    weights = find_prunable_weights(model_or_mask, include=include, exclude=exclude)
    with ThreadPoolExecutor(READERS if any(not weight.is_in_memory for weight in weights.values()) else 1) as pool:
        zeros = dict(zip(weights, pool.map(_count_zeros, weights.values()), strict=True))
    return sum(weights.count(zeros).values()) / weights.num_weights if weights.num_weights else 0.0


def _count_zeros(weight: Weight) -> int:
    blocks = (weight.read(*block) for block in weight.cut(WEIGHTS_PER_BLOCK))
    # torch counts no floats of 8 bits, which are exact in 16
    return weight.size - sum(int((b.half() if b.itemsize == 1 else b).count_nonzero()) for b in blocks)


@contextlib.contextmanager
def masked(model: nn.Module, mask: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """Within the block, `model` computes as if its pruned weights were zero; afterwards it is bit for bit as before.

    Nothing in the model is written. Each torch function that is handed a masked parameter gets a masked copy instead,
    which lives as long as the function needs it, so without gradients the extra memory is at most the largest layer.
    Gradients flow, and are zero at pruned weights. A compiled model runs uncompiled inside the block.

    Args:
        model: Any model, on any device.
        mask: By parameter name, True where a weight is kept.

    Yields:
        The same model.

    Raises:
        ValueError: When the mask does not fit the model.
        RuntimeError: When something inside the block changes a masked parameter in place; train with `hold_mask`.

    Examples:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with masked(model, {"weight": torch.tensor([[False, False]])}):
        ...     model(torch.ones(1, 2)).item()
        0.0
    """
    parameters, placed = fit_mask(model, as_mask(mask))
    bits = placed.bits
    gathered = {name: p for name, p in parameters.items() if id(p) in list_gathered(unwrap(model))}
    reads = ReplacedReads(
        {name: parameter for name, parameter in parameters.items() if name not in gathered},
        partial(_prune_copy, bits),
        purpose="masked() is for measuring, and hold_mask for training",
    )
    shards = {id(parameter): _prune_clone(see_local(parameter), bits[name]) for name, parameter in gathered.items()}
    with uncompiled(), reads, gathering_others(unwrap(model), shards), contextlib.ExitStack() as hooks:
        for name, parameter in gathered.items():
            hooks.callback(parameter.register_post_accumulate_grad_hook(partial(_zero_gradient, bits[name])).remove)
        yield model  # run uncompiled, because compiled code would read the parameters unseen


def hold_mask(model: nn.Module, mask: Mapping[str, Tensor], *, others: Others = "zero") -> None:
    """Prunes a model and keeps it pruned while anyone trains it; returns nothing.

    The pruned weights are zero in every forward pass of the model or of a part of it, after every step of every
    `torch.optim` style optimizer, in any training loop, and in every `state_dict`; so are their gradients after every
    backward pass and the optimizer's state at their places after every step. Whatever writes weights otherwise (an
    optimizer of your own, averages that are written back, `p.data = ...`, `vector_to_parameters`) is undone where
    they are next used, in place, so a parameter's memory must be its own. A deepcopy or a pickle of the model is held
    too; `state_dict` has the usual names, and weights loaded by `load_state_dict` are pruned at once. A mask held
    before is let go. `check_held` says whether all is zero at this moment; `remove_mask` ends it, and
    `torch.jit.script` wants that first.

    A parameter that is replaced by another (`module.weight = nn.Parameter(...)`, a conversion that makes new ones,
    `weight_norm`) is not held: the next forward pass raises and says so. So does a backward pass, where weights were
    written and the forward pass ran in compiled code. Where a model is compiled after `hold_mask` and only evaluates,
    nothing of ours runs, and it computes with what was written: give `hold_mask` what `torch.compile` returns, and it
    is held before it runs, or ask `check_held`. An optimizer that steps copies of the parameters (fp32 "master weights"
    kept outside the model) is not seen.

    Args:
        model: Any model, compiled or not, before or after its optimizer is made.
        mask: By parameter name, True where a weight is kept.
        others: What the weights are that the mask does not keep: "zero", or "frozen", as they are now, bit for bit;
            what is said above of zeros is then so of these values, and their gradients are zero. Weights that the
            mask does not name are free.

    Raises:
        ValueError: When the mask does not fit the model, or `others` is something else.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> hold_mask(model, {"weight": torch.tensor([[True, False]])})
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> model(torch.ones(3, 2)).sum().backward()
        >>> optimizer.step()
        >>> model.weight[0, 1].item(), model.weight.grad[0, 1].item()
        (0.0, 0.0)
    """
    if others not in get_args(Others):
        raise ValueError(f"others must be one of {', '.join(get_args(Others))}, got {others!r}")
    parameters, placed = fit_mask(model, as_mask(mask))
    remove_mask(model)
    frozen = None
    if others == "frozen":
        frozen = {name: see_local(parameter.detach()).clone() for name, parameter in parameters.items()}
    hang_guards(model, Holder(placed, parameters, frozen))
    logger.info("holding a mask of sparsity %.4f on %d parameters", placed.sparsity, len(parameters))


def remove_mask(model: nn.Module) -> None:
    """Stops holding a mask and returns nothing; the weights stay as they are, and may move again.

    Args:
        model: The model; without a held mask nothing happens.
    """
    guard = find_guard(model)
    if guard is not None:
        guard.holder.let_go()
        take_guards_off(model, guard.holder)


def check_held(model: nn.Module) -> Mask:
    """Returns the mask that a model is held to, after looking whether it holds now; nothing is changed.

    `hold_mask` zeroes pruned weights where they are next used. This says what stands in the model at this moment, for
    code that reads weights without a forward pass or a state dict.

    Args:
        model: A model that `hold_mask` was called on, or a copy of one.

    Raises:
        ValueError: When no mask is held on the model.
        RuntimeError: When a held parameter is no longer the model's, or a pruned weight or its gradient is not zero.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> hold_mask(model, {"weight": torch.tensor([[True, False]])})
        >>> check_held(model).num_kept
        1
        >>> model.weight.data.fill_(1.0)
        tensor([[1., 1.]])
        >>> check_held(model)
        Traceback (most recent call last):
        RuntimeError: pruned weights must be zero, but 1 of 1 in 'weight' are not; call apply_mask
    """
    guard = find_guard(model)
    if guard is None:
        raise ValueError("the model must be held to a mask, but is not; call hold_mask(model, mask) first")
    shards = guard.holder.mask.shards
    leaks = guard.list_leaks(unwrap(model))
    if shards is not None:  # a leak in one process is told in all
        leaks = [leak for found in shards.together.gather(lambda: leaks) for leak in found]
    if leaks:
        must, remedy = "be zero", "call apply_mask"
        if guard.holder.frozen is not None:
            must, remedy = "be as they were frozen", "a forward pass or state_dict() puts them back"
        message = f"pruned weights must {must}, but {'; '.join(leaks)}; {remedy}"
        raise RuntimeError(message)
    return guard.holder.mask


def find_held_mask(model: nn.Module) -> Mask | None:
    """Returns the mask that a model is held to; None when it is held to none."""
    guard = find_guard(model)
    return None if guard is None else guard.holder.mask


def _prune_copy(bits: Mapping[str, Tensor], name: str, parameter: nn.Parameter) -> Tensor:
    local = see_local(parameter)
    if torch.is_grad_enabled() and parameter.requires_grad:
        pruned = ~unpack_bits(bits[name].to(local.device), local.shape)
        return parameter.masked_fill(wrap_like(pruned, parameter), 0)
    return wrap_like(_prune_clone(local, bits[name]), parameter)


def _prune_clone(local: Tensor, bits: Tensor) -> Tensor:
    copied = local.detach().clone()  # nothing but this copy is allocated
    zero_pruned_(copied, bits.to(copied.device))
    return copied


def _zero_gradient(bits: Tensor, parameter: Tensor) -> None:
    if parameter.grad is not None:
        local = see_local(parameter.grad)
        zero_pruned_(local, bits.to(local.device))

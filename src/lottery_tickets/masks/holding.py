"""Putting a mask on a model: for one look (`masked`), once (`apply_mask`), or for good while it trains (`hold_mask`).

The model is never wrapped: parameters keep their names, their identity and their storage.
"""

import contextlib
import logging
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.measuring.stand_ins import ReplacedReads
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.weights import Weight
from lottery_tickets.masks.mask import Mask, as_mask

# Where weight, gradient and state are zero, these leave all three at zero: they work weight by weight, and their update
# of zeros is zero. (Not so Adamax and Rprop, whose states have a least value, nor Muon, which mixes weights.)
STAY_AT_ZERO: Final = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)

WEIGHTS_PER_BLOCK: Final = 1 << 24

logger = logging.getLogger(__name__)


def apply_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Zeroes the pruned weights of a model once, in place; returns nothing.

    Args:
        model: The model to change.
        mask: By parameter name, True where a weight is kept.

    Raises:
        ValueError: When the mask does not fit the model.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> apply_mask(model, {"weight": torch.tensor([[True, False]])})
        >>> model.weight[0, 1].item()
        0.0
    """
    checked = as_mask(mask)
    for name, parameter in find_masked_parameters(model, checked).items():
        zero_pruned_(parameter, checked.bits[name].to(parameter.device))


def compute_sparsity(
    model_or_mask: nn.Module | Mapping[str, Tensor],
    *,
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> float:
    """Returns the fraction of prunable weights that are zero in a model, or that a mask removes, in [0, 1].

    Args:
        model_or_mask: A model, or a mask.
        include: Replaces the default choice of a model's weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Example:
        >>> compute_sparsity({"weight": torch.tensor([[True, False]])})
        0.5
    """
    if not isinstance(model_or_mask, nn.Module):
        return as_mask(model_or_mask).sparsity
    weights = find_prunable_weights(model_or_mask, include=include, exclude=exclude)
    num_zeros = sum(_count_zeros(weight) for weight in weights.values())
    return num_zeros / weights.num_weights if weights.num_weights else 0.0


def _count_zeros(weight: Weight) -> int:
    return weight.size - sum(int(weight.read(*block).count_nonzero()) for block in weight.cut(WEIGHTS_PER_BLOCK))


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

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with masked(model, {"weight": torch.tensor([[False, False]])}):
        ...     model(torch.ones(1, 2)).item()
        0.0
    """
    checked = as_mask(mask)
    reads = ReplacedReads(
        find_masked_parameters(model, checked),
        partial(_prune_copy, checked),
        purpose="masked() is for measuring, and hold_mask for training",
    )
    with torch.compiler.set_stance("force_eager"), reads:  # compiled code would read the parameters unseen
        yield model


def hold_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Prunes a model and keeps it pruned while anyone trains it; returns nothing.

    From now on the pruned weights are zero after every step of every `torch.optim` style optimizer, in any training
    loop, and so are their gradients after every backward pass and their optimizer state after every step. A deepcopy
    or a pickle of the model is held too; `state_dict` has the usual names, and weights loaded by `load_state_dict` are
    pruned at once. A mask held before is let go. `remove_mask` ends it.

    An optimizer that steps copies of the parameters (fp32 "master weights" kept outside the model) is not seen.

    Args:
        model: Any model, compiled or not, before or after its optimizer is made.
        mask: By parameter name, True where a weight is kept.

    Raises:
        ValueError: When the mask does not fit the model.
        TypeError: When a parameter is sharded over devices (DTensor).

    Example:
        >>> model = nn.Linear(2, 1)
        >>> hold_mask(model, {"weight": torch.tensor([[True, False]])})
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> model(torch.ones(3, 2)).sum().backward()
        >>> optimizer.step()
        >>> model.weight[0, 1].item(), model.weight.grad[0, 1].item()
        (0.0, 0.0)
    """
    checked = as_mask(mask)
    module = unwrap(model)
    parameters = find_masked_parameters(model, checked)
    remove_mask(model)
    module.register_load_state_dict_post_hook(_Holder(checked, parameters))
    logger.info("holding a mask of sparsity %.4f on %d parameters", checked.sparsity, len(parameters))


def remove_mask(model: nn.Module) -> None:
    """Stops holding a mask and returns nothing; the weights stay as they are, and may move again.

    Args:
        model: The model; without a held mask nothing happens.
    """
    hooks = unwrap(model)._load_state_dict_post_hooks  # noqa: SLF001 - torch offers no way to list hooks
    for key, hook in list(hooks.items()):
        if isinstance(hook, _Holder):
            hook.let_go()
            del hooks[key]


def find_held_mask(model: nn.Module) -> Mask | None:
    """Returns the mask that a model is held to; None when it is held to none."""
    hooks = unwrap(model)._load_state_dict_post_hooks  # noqa: SLF001 - torch offers no way to list hooks
    return next((hook.mask for hook in hooks.values() if isinstance(hook, _Holder)), None)


def find_masked_parameters(model: nn.Module, mask: Mask) -> dict[str, nn.Parameter]:
    """Returns the parameters a mask speaks of, by its names.

    Raises:
        ValueError: When a name or a shape does not fit the model.
        TypeError: When a parameter is sharded.
    """
    named = unwrap(model).named_parameters(remove_duplicate=False)
    parameters = {clean_name(name): parameter for name, parameter in named}
    found = {}
    for name, shape in mask.shapes.items():
        parameter = parameters.get(name)
        if parameter is None:
            message = f"mask names {name!r}, but the model has no such parameter; was it made for another model?"
            raise ValueError(message)
        if parameter.shape != shape:
            message = (
                f"mask for {name!r} has shape {tuple(shape)}, but the parameter has shape {tuple(parameter.shape)}; "
                "was it made for another model?"
            )
            raise ValueError(message)
        if type(parameter.data) is not Tensor:
            message = (
                f"{name!r} must be a plain tensor, but is a {type(parameter.data).__name__}; gather the model first"
            )
            raise TypeError(message)
        found[name] = parameter
    return found


@final
class _Holder:
    """The hooks that keep one mask on one model.

    It hangs in the model's load_state_dict hooks: there it sees new weights come in, and there a deepcopy or a pickle
    of the model copies it along (`__reduce__`) and so gets hooks of its own.
    """

    def __init__(self, mask: Mask, parameters: dict[str, nn.Parameter]) -> None:
        self.mask = mask
        self.parameters: dict[str, nn.Parameter] = {}
        self.by_id: dict[int, tuple[str, Tensor]] = {}
        self.gradient_hooks: list[Any] = []
        # By parameter, what is known to be zero at pruned places: the gradient, with the version (torch counts writes)
        # that is, and the optimizer's state. Plain references and not a WeakTensorKeyDictionary, which takes longer
        # than zeroing a small layer does.
        self.clean_gradients: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self.clean_states: dict[int, list[weakref.ref[Tensor]]] = {}
        self.attach(parameters)
        # The optimizer hook is torch's own and global, so it must not keep the model alive.
        step_hook = register_optimizer_step_post_hook(partial(_after_step, weakref.ref(self)))
        self.let_go_of_steps = weakref.finalize(self, step_hook.remove)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Holder, (self.mask, self.parameters)

    def __call__(self, model: nn.Module, _incompatible_keys: object) -> None:
        """After load_state_dict, which may have put other values in place or other parameters (`assign=True`)."""
        self.attach(find_masked_parameters(model, self.mask))

    def attach(self, parameters: dict[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            if parameter is not self.parameters.get(name) and parameter.requires_grad:
                hook = partial(_zero_gradient, weakref.ref(self))
                self.gradient_hooks.append(parameter.register_post_accumulate_grad_hook(hook))
        self.parameters = parameters
        # The kernels read bits eight bytes at a time: a fresh copy is aligned, a slice of a loaded file need not be.
        self.by_id = {id(p): (name, self.mask.bits[name].to(p.device, copy=True)) for name, p in parameters.items()}
        for parameter in parameters.values():
            self.zero(parameter, parameter)
            if parameter.grad is not None:
                self.zero(parameter, parameter.grad)

    def zero(self, parameter: Tensor, tensor: Tensor) -> None:
        """Zeroes the pruned places of `tensor`, which has the shape of `parameter`."""
        name, bits = self.by_id[id(parameter)]
        if bits.device != tensor.device:  # the model moved
            bits = bits.to(tensor.device)
            self.by_id[id(parameter)] = (name, bits)
        zero_pruned_(tensor, bits)

    def has_clean_gradient(self, parameter: Tensor, gradient: Tensor) -> bool:
        known = self.clean_gradients.get(id(parameter))
        return known is not None and known[0]() is gradient and known[1] == gradient._version  # noqa: SLF001 - torch's count of writes, read only

    def clean_gradient(self, parameter: Tensor, gradient: Tensor) -> None:
        """Zeroes the pruned places of a gradient, and remembers it."""
        self.zero(parameter, gradient)
        self.clean_gradients[id(parameter)] = (weakref.ref(gradient), gradient._version)  # noqa: SLF001 - as above

    def has_clean_state(self, parameter: Tensor, state: Tensor) -> bool:
        return any(known() is state for known in self.clean_states.get(id(parameter), ()))

    def clean_state(self, parameter: Tensor, state: Tensor) -> None:
        """Zeroes the pruned places of an optimizer's state, and remembers it."""
        self.zero(parameter, state)
        known = [ref for ref in self.clean_states.get(id(parameter), ()) if ref() is not None and ref() is not state]
        self.clean_states[id(parameter)] = [*known, weakref.ref(state)]

    def let_go(self) -> None:
        self.let_go_of_steps()
        for hook in self.gradient_hooks:
            hook.remove()


def _zero_gradient(holder: "weakref.ref[_Holder]", parameter: Tensor) -> None:
    alive = holder()
    if alive is not None and parameter.grad is not None and id(parameter) in alive.by_id:
        alive.clean_gradient(parameter, parameter.grad)


def _after_step(holder: "weakref.ref[_Holder]", optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Zeroes weights, gradients that no backward pass made, and the optimizer state that may not be zero."""
    alive = holder()
    if alive is None:
        return
    offset = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in alive.by_id:
                alive.zero(parameter, parameter)
                stays_zero = type(optimizer) in STAY_AT_ZERO and parameter.grad is not None
                if parameter.grad is not None and not alive.has_clean_gradient(parameter, parameter.grad):
                    alive.clean_gradient(parameter, parameter.grad)
                    stays_zero = False
                for state in _state_of(optimizer, parameter, offset):
                    if not (stays_zero and alive.has_clean_state(parameter, state)):
                        alive.clean_state(parameter, state)
            offset += parameter.numel()


def _state_of(optimizer: torch.optim.Optimizer, parameter: Tensor, offset: int) -> Iterator[Tensor]:
    """Yields the state tensors that have one element a weight of `parameter`."""
    if isinstance(optimizer, torch.optim.LBFGS):
        yield from _flat_state_of(optimizer, parameter, offset)
    else:
        yield from (t for t in optimizer.state.get(parameter, {}).values() if _is_like(t, parameter))


def _is_like(value: object, parameter: Tensor) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.shape == parameter.shape and value.dim() > 0
    )


def _flat_state_of(optimizer: torch.optim.LBFGS, parameter: Tensor, offset: int) -> Iterator[Tensor]:
    """L-BFGS keeps vectors over all parameters end to end, under the first parameter; the weight's stretch of each."""
    parameters = optimizer.param_groups[0]["params"]
    total = sum(p.numel() for p in parameters)
    for value in optimizer.state.get(parameters[0], {}).values():
        for vector in value if isinstance(value, list) else [value]:
            if isinstance(vector, Tensor) and vector.dim() == 1 and vector.numel() == total:
                yield vector[offset : offset + parameter.numel()].view(parameter.shape)


def _prune_copy(mask: Mask, name: str, parameter: nn.Parameter) -> Tensor:
    bits = mask.bits[name].to(parameter.device)
    if torch.is_grad_enabled() and parameter.requires_grad:
        return parameter.masked_fill(~unpack_bits(bits, parameter.shape), 0)
    copied = parameter.detach().clone()  # nothing but this copy is allocated
    zero_pruned_(copied, bits)
    return copied

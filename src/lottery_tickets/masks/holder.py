"""What keeps the weights of one mask at zero, or as they were: hooks on the parameters and on torch's optimizers.

Pruned weights are zeroed, not looked for: writes through `.data` leave no trace but the values, and to read all of them
costs what zeroing them does.
"""

import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from functools import cache, partial, reduce
from itertools import takewhile
from operator import and_
from typing import Any, Final, TypeGuard, final

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lottery_tickets._core.selection.zeroing import SMALLEST_FOR_KERNEL, PrunedPlaces, see_bits
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets.masks.mask import Mask

MOST_TO_KEEP_UNPACKED: Final = 1 << 30  # weights of a mask, at a byte each; of more, bits are unpacked at each use
# Where weight, gradient and state are zero, these leave all three at zero: they work weight by weight, and their update
# of zeros is zero. (Not so Adamax and Rprop, whose states have a least value, nor Muon, which mixes weights.)
STAY_AT_ZERO: Final = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


@final
class HeldWeight:
    """One parameter that is held, and what is known to be zero at its pruned places."""

    def __init__(
        self,
        name: str,
        parameter: nn.Parameter,
        places: PrunedPlaces,
        shape: torch.Size,
        frozen: Tensor | None = None,
    ) -> None:
        self.name = name
        self.parameter = parameter
        self.shape = shape
        self.places = places
        self.frozen = frozen  # values of its shape, which it has at pruned places; zeros where None
        self.hook: Any = None
        # Whether a forward pass that gradients may come from began with zeroed weights. None is set by compiled code,
        # nor by a function that is handed the weight: no hook sees them.
        self.was_seen = False
        # The gradient that is zero at pruned places, with the version (torch counts writes) that is, and the
        # optimizer's state. Plain references and not a WeakTensorKeyDictionary, which takes longer than zeroing a small
        # layer does.
        self.clean_gradient: tuple[weakref.ref[Tensor], int] | None = None
        self.clean_state: tuple[weakref.ref[Tensor] | None, ...] = ()

    def settle(self) -> None:
        """Zeroes the pruned weights, or gives them their frozen values.

        Raises:
            RuntimeError: When the parameter was given values of another shape.
        """
        local = see_local(self.parameter)
        if self.places.has_moved(local):
            self.check_shape()
            self.places.learn(local)
            self._hang_up_hook()
        if self.frozen is None:
            self.places.zero_own_(local)
        else:
            self.places.fill_(local, self._bring(self.frozen, local))

    def see_strays(self, values: Tensor) -> Tensor:
        """Returns what is zero at pruned places where they hold what they must, of values in place of the parameter.

        These are the values themselves, or the bits in which they differ from the frozen ones.
        """
        own = see_local(values.detach())
        return own if self.frozen is None else see_bits(own) ^ see_bits(self._bring(self.frozen, own))

    def check_shape(self) -> None:
        """Raises RuntimeError when the parameter was given values of another shape."""
        if self.parameter.shape != self.shape:
            message = (
                f"the held weight {self.name!r} must keep its shape {tuple(self.shape)}, but has become "
                f"{tuple(self.parameter.shape)}; call remove_mask, then hold_mask with a mask of that shape"
            )
            raise RuntimeError(message)

    def zero_gradient(self, gradient: Tensor) -> None:
        """Zeroes the pruned places of a gradient, and remembers it."""
        local = self.see_own(gradient)
        self.places.zero_(local)
        self.clean_gradient = (weakref.ref(local), local._version)  # noqa: SLF001 - torch's count of writes, read only

    def see_own(self, tensor: Tensor) -> Tensor:
        """Returns what lies here of a gradient or a state.

        Raises:
            RuntimeError: When it is shared out over processes in another way than the weight.
        """
        local, own = see_local(tensor), see_local(self.parameter)
        if local.shape != own.shape:
            message = (
                f"gradients and states of {self.name!r} must be shared out as the weight is, {tuple(own.shape)} in "
                f"this process, but one has {tuple(local.shape)}; redistribute it"
            )
            raise RuntimeError(message)
        return local

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Zeroes weights, a gradient that no backward pass made, and the optimizer's state where it may not be zero."""
        self.settle()
        self.was_seen = False
        gradient = self.parameter.grad
        stays_zero = gradient is not None and self._is_clean(gradient) and type(optimizer) in STAY_AT_ZERO
        if gradient is not None and not stays_zero:
            self.zero_gradient(gradient)
        if isinstance(optimizer, torch.optim.LBFGS):
            for vector in _flat_state_of(optimizer, self.parameter):
                self.places.zero_(vector)
            return
        state = optimizer.state.get(self.parameter, {}).values()
        if not (stays_zero and self._knows(state)):
            for tensor in state:
                if _is_like(tensor, self.parameter):
                    self.places.zero_(self.see_own(tensor))
            self.clean_state = tuple(weakref.ref(t) if isinstance(t, Tensor) else None for t in state)

    def let_go(self) -> None:
        """Takes the hook off the parameter."""
        if self.hook is not None:
            self.hook.remove()

    def _is_clean(self, gradient: Tensor) -> bool:
        known, local = self.clean_gradient, see_local(gradient)
        return known is not None and known[0]() is local and known[1] == local._version  # noqa: SLF001 - as above

    def _knows(self, state: Collection[object]) -> bool:
        """Returns whether the state is the tensors that were zeroed, None where there was none."""
        known = self.clean_state
        return len(known) == len(state) and all(
            (None if ref is None else ref()) is value for ref, value in zip(known, state, strict=True)
        )

    def _bring(self, frozen: Tensor, local: Tensor) -> Tensor:
        """Returns the frozen values where the parameter is, in its dtype."""
        if (frozen.device, frozen.dtype) != (local.device, local.dtype):
            self.frozen = frozen = frozen.to(local)
        return frozen

    def _hang_up_hook(self) -> None:
        parameter = self.parameter
        if parameter.is_inference() or not parameter.is_floating_point():  # it never has a gradient
            return
        needs_gradient = parameter.requires_grad
        parameter.requires_grad_()  # torch takes hooks only then, and keeps them while a weight is frozen
        if self.hook is None:
            self.hook = parameter.register_post_accumulate_grad_hook(partial(_after_backward, weakref.ref(self)))
        # A conversion that swaps tensors keeps this dict and forgets that it has hooks.
        parameter._post_accumulate_grad_hooks = parameter._post_accumulate_grad_hooks  # noqa: SLF001 - torch has no public name for it
        parameter.requires_grad_(needs_gradient)


class _Inside(threading.local):
    """What a thread is inside of: the guard (`masks/guard.py`) of the outermost module, all of which was settled."""

    guard: Any = None


@final
class Holder:
    """One mask, held on the parameters of one model.

    It knows parameters and no modules. The guards on the modules know it, so it lives as long as they do, and a
    deepcopy or a pickle of the model, or of a part of it, copies it along (`__reduce__`), with hooks of its own.
    """

    def __init__(
        self, mask: Mask, parameters: Mapping[str, nn.Parameter], frozen: Mapping[str, Tensor] | None = None
    ) -> None:
        self.mask = mask
        self.frozen = frozen  # by name, values that pruned places have; zeros where None
        self.is_held = True
        self.inside = _Inside()
        self.weights: dict[str, HeldWeight] = {}
        self.by_id: dict[int, HeldWeight] = {}
        self.attach(parameters)
        _watch_steps().add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        parameters = {name: held.parameter for name, held in self.weights.items()}
        return _copy_holder, (self.mask, parameters, self.is_held, self.frozen)

    def attach(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Holds these parameters, by their names in the mask, and lets go of those that had the names before.

        Their pruned weights are zero or frozen from now on, their gradients zero.
        """
        changed = {n: p for n, p in parameters.items() if n not in self.weights or self.weights[n].parameter is not p}
        new: dict[int, HeldWeight] = {}
        for name, parameter in changed.items():
            if id(parameter) not in new:
                # Several names of a tied weight may be pruned, each in other places.
                bits = [self.mask.bits[other] for other, tied in parameters.items() if tied is parameter]
                places = self._make_places(reduce(and_, bits))
                frozen = None if self.frozen is None else self.frozen[name]
                new[id(parameter)] = HeldWeight(name, parameter, places, self.mask.shapes[name], frozen)
            if name in self.weights:
                self.weights[name].let_go()
            self.weights[name] = new[id(parameter)]
        self.by_id = {id(held.parameter): held for held in self.weights.values()}
        for name, parameter in parameters.items():
            self.weights[name].settle()
            if parameter.grad is not None:
                self.weights[name].zero_gradient(parameter.grad)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Zeroes what a step of an optimizer may have moved."""
        self.inside.guard = None  # should a forward pass have been interrupted
        by_id = self.by_id
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held = by_id.get(id(parameter))
                if held is not None:
                    held.after_step(optimizer)

    def _make_places(self, bits: Tensor) -> PrunedPlaces:
        num_weights = self.mask.num_weights
        return PrunedPlaces(
            bits, compiled=num_weights >= SMALLEST_FOR_KERNEL, unpacked=num_weights <= MOST_TO_KEEP_UNPACKED
        )

    def let_go(self) -> None:
        """Takes all hooks off parameters and optimizers."""
        self.is_held = False
        _watch_steps().discard(self)
        for held in self.weights.values():
            held.let_go()


def _copy_holder(
    mask: Mask,
    parameters: dict[str, nn.Parameter],
    is_held: bool,  # noqa: FBT001 - called by pickle
    frozen: Mapping[str, Tensor] | None,
) -> Holder:
    holder = Holder(mask, parameters, frozen)
    if not is_held:
        holder.let_go()
    return holder


def _after_backward(reference: "weakref.ref[HeldWeight]", parameter: Tensor) -> None:
    held = reference()
    if held is None or parameter.grad is None:
        return
    if not held.was_seen and held.places.any_nonzero(held.see_strays(parameter)):
        message = (
            f"the pruned weights of {held.name!r} must be {'zero' if held.frozen is None else 'as they were frozen'}, "
            "but a forward pass used others: they were written to, "
            "and it ran where no hook is called (compiled code, or a function that is handed the weight); give "
            "hold_mask the compiled model, or call apply_mask after such writes"
        )
        raise RuntimeError(message)
    held.was_seen = False
    held.zero_gradient(parameter.grad)


@cache
def _watch_steps() -> "weakref.WeakSet[Holder]":
    """Returns those who are told of each step of torch's optimizers, by one hook that stays.

    A hook for each could only be taken off where a step is not just calling them: garbage is collected at any moment.
    """
    holders: weakref.WeakSet[Holder] = weakref.WeakSet()  # the hook is global, and must not keep models alive

    def after_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for holder in list(holders):
            holder.after_step(optimizer)

    register_optimizer_step_post_hook(after_step)
    return holders


def _is_like(value: object, parameter: Tensor) -> TypeGuard[Tensor]:
    """Returns whether it is a tensor with one element a weight of the parameter."""
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.shape == parameter.shape and value.dim() > 0
    )


def _flat_state_of(optimizer: torch.optim.LBFGS, parameter: Tensor) -> Iterator[Tensor]:
    """L-BFGS keeps vectors over all parameters end to end, under the first parameter; the weight's stretch of each."""
    parameters = optimizer.param_groups[0]["params"]
    total = sum(p.numel() for p in parameters)
    offset = sum(p.numel() for p in takewhile(lambda p: p is not parameter, parameters))
    for value in optimizer.state.get(parameters[0], {}).values():
        for vector in value if isinstance(value, list) else [value]:
            if isinstance(vector, Tensor) and vector.dim() == 1 and vector.numel() == total:
                yield vector[offset : offset + parameter.numel()].view(parameter.shape)

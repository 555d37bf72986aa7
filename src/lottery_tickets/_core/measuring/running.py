"""Running a model without touching it: other tensors in place of its parameters, and everything put back."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from typing import Any, Final, NamedTuple, final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from lottery_tickets._core.names import clean_name, identify, unwrap
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.fsdp import (
    computing_with,
    find_gathered,
    gather_once,
    gathering_others,
    handing_gradients_on,
    list_gathered,
    reshard,
)
from lottery_tickets._core.shared_contexts import SharedContext


def run_with(model: nn.Module, tensors: Mapping[str, Tensor], function: Callable[[nn.Module], Any]) -> Any:  # noqa: ANN401 - whatever the function returns
    """Returns `function(model)`, computed with other tensors in place of the model's own.

    No parameter takes part itself, so none gets a gradient, and no hook that hangs on one is called.

    Args:
        model: Any model.
        tensors: By name, what stands for parameters and buffers. A parameter that is not named stays as it is, but is
            taken for a constant.
        function: Given the model inside what torch.compile and data parallelism wrapped around it.
    """
    return Slots(model, tensors).run_with(tensors, function)


@final
class Slots:
    """Where a model keeps its parameters, and buffers of some names: found once, to hand in other tensors many times.

    Args:
        model: Any model, whose modules keep their parameters meanwhile.
        names: Of all tensors that will be handed in.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._inner = unwrap(model)
        reshard(self._inner)
        self._gathered = list_gathered(self._inner)
        slots = list(_find_slots(self._inner))
        own = {slot.name: slot.tensor for slot in reversed(slots)}  # of two of one name the first
        by_id = {id(own[name]): name for name in names if name in own}
        # A weight may have several parameters, one beside the other in memory that they share; all of them are meant.
        by_memory = {identify(own[name]): name for name in by_id.values()}
        self._taken: list[tuple[_Slot, str | None]] = []
        for slot in slots:
            if id(slot.tensor) in by_id:
                self._taken.append((slot, by_id[id(slot.tensor)]))
            elif slot.is_parameter:
                self._taken.append((slot, by_memory.get(identify(slot.tensor))))

    def run_with(
        self, tensors: Mapping[str, Tensor], function: Callable[[nn.Module], Any], *, are_whole: bool = False
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Returns `function(model)`, as the function `run_with` does; tensors are of the names that were told.

        Args:
            tensors: What stands for the model's own.
            function: Given the model.
            are_whole: Whether those of sharded parameters are handles of what modules gather, see `see_gathered`, and
                not shards to be gathered.

        Raises:
            RuntimeError: When a parameter has been replaced since, which putting back would undo.
        """
        reshard(self._inner)
        for slot, _ in self._taken:
            if slot.module_slots.get(slot.key) is not slot.tensor:
                raise RuntimeError(
                    f"{slot.name!r} must stay the model's own while the model is measured, but was replaced; "
                    "does the data loader change the model?"
                )
        taken = [(slot, name) for slot, name in self._taken if id(slot.tensor) not in self._gathered]
        try:
            for slot, name in taken:
                slot.module_slots[slot.key] = slot.tensor.detach() if name is None else tensors[name]
            if not self._gathered:
                return function(self._inner)
            return self._run_gathered(tensors, function, are_whole=are_whole)
        finally:
            for slot, _ in taken:
                slot.module_slots[slot.key] = slot.tensor

    def _run_gathered(
        self, tensors: Mapping[str, Tensor], function: Callable[[nn.Module], Any], *, are_whole: bool
    ) -> Any:  # noqa: ANN401 - as above
        """Returns `function(model)` where modules gather their parameters themselves (FSDP): they gather others."""
        others = {
            id(slot.tensor): tensors[name]
            for slot, name in self._taken
            if id(slot.tensor) in self._gathered and name is not None and name in tensors
        }
        if are_whole:
            with computing_with(self._inner, others):
                return function(self._inner)
        shards = {key: see_local(tensor.detach()) for key, tensor in others.items()}
        with gathering_others(self._inner, shards), handing_gradients_on(self._inner, others):
            return function(self._inner)


class _Slot(NamedTuple):
    """Where a module keeps a parameter or buffer: what it reads when its forward asks for the attribute."""

    module_slots: dict[str, Any]
    key: str
    tensor: Tensor
    name: str
    is_parameter: bool


def _find_slots(model: nn.Module) -> Iterator[_Slot]:
    """Yields each slot of each module once, in one walk: torch's functional_call takes several of them, each time."""
    for prefix, module in model.named_modules():
        for slots, is_parameter in ((module._parameters, True), (module._buffers, False)):  # noqa: SLF001 - where a module looks itself
            for key, tensor in slots.items():
                if tensor is not None:
                    yield _Slot(slots, key, tensor, clean_name(f"{prefix}.{key}" if prefix else key), is_parameter)


def see_gathered(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what modules compute with: of a sharded parameter what is gathered, whose memory comes and goes.

    Args:
        model: Where a parameter is sharded, all processes call this.
        parameters: Of the model, by name.
    """
    inner = unwrap(model)
    gather_once(inner)
    found = {name: find_gathered(inner, parameter) for name, parameter in parameters.items()}
    return {name: parameters[name] if whole is None else whole for name, whole in found.items()}


def differentiate(output: Tensor, handles: Mapping[str, Tensor], *, create_graph: bool = False) -> dict[str, Tensor]:
    """Returns the gradient of a number by name, of those handles that it depends on."""
    found: Iterable[Tensor | None] = torch.autograd.grad(
        output, list(handles.values()), create_graph=create_graph, allow_unused=True
    )
    return {name: gradient for name, gradient in zip(handles, found, strict=True) if gradient is not None}


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode and runs uncompiled; then its modules are as before.

    Put back are modes, buffers and public attributes, which a forward pass may change.
    Gradient checkpointing is off: it computes a second time in the backward pass, out of reach of handed-in tensors.
    """
    modes = [(module, module.training) for module in model.modules()]
    state = ModuleState(model)
    if any(training for _, training in modes):
        model.eval()
    try:
        # In a caller's inference mode nothing could be differentiated.
        with uncompiled(), torch.inference_mode(mode=False), _without_checkpointing():
            yield
    finally:
        for module, training in modes:
            if module.training is not training:  # torch's modules take long to set an attribute
                module.training = training
        state.put_back()
        reshard(unwrap(model))  # what was gathered for the last forward pass would be taken for its parameters


@final
class ModuleState:
    """What modules keep beside parameters, and what a forward pass may change: buffers and public attributes.

    Rotary embeddings, for example, note the longest sequence that their buffer was made for.

    Args:
        model: Any model.
        device: Where copies of the buffers lie; beside them by default.
    """

    def __init__(self, model: nn.Module, device: str | None = None) -> None:
        # At once, because another thread may run the model.
        self._modules = [(module, dict(module._buffers), dict(vars(module))) for module in model.modules()]  # noqa: SLF001 - where a module looks itself
        tensors = [buffer for _, buffers, _ in self._modules for buffer in buffers.values() if buffer is not None]
        self._copies = [
            (tensor, tensor.detach().clone() if device is None else tensor.detach().to(device, copy=True))
            for tensor in tensors
        ]

    def put_back(self) -> None:
        """Makes attributes the same objects as before, and buffers the same tensors with the same numbers."""
        for module, buffers, attributes in self._modules:
            _put_back(module._buffers, buffers)  # noqa: SLF001 - as above
            # Past the module's own setter, which takes long and asks what a value is.
            _put_back(vars(module), attributes, lambda name: not name.startswith("_"))
        with torch.no_grad():
            for tensor, copy in self._copies:
                if tensor.shape != copy.shape:
                    tensor.resize_(copy.shape)
                if not torch.equal(tensor, copy.to(tensor.device)):
                    tensor.copy_(copy)


def _put_back(
    slots: dict[str, Any], before: Mapping[str, Any], is_ours: Callable[[str], bool] = lambda _: True
) -> None:
    """Makes what is now in some slots what was there before.

    Args:
        slots: Of a module.
        before: What they held.
        is_ours: Whether a name's slot is to be put back: what begins with an underscore is of torch, of what shards
            models, or nobody's business.
    """
    now = dict(slots)
    if now.keys() == before.keys() and all(map(is_, now.values(), before.values())):  # nearly always, and quickly asked
        return
    for name in filter(is_ours, now.keys() - before.keys()):
        slots.pop(name, None)
    for name in filter(is_ours, before):
        if name not in now or now[name] is not before[name]:
            slots[name] = before[name]


@contextlib.contextmanager
def _patched_checkpointing() -> Iterator[None]:
    """Within the block torch.utils.checkpoint.checkpoint only calls its function, which gives the same numbers."""
    with (
        patch.object(checkpoint, "CheckpointFunction", _Direct),
        patch.object(checkpoint, "_checkpoint_without_reentrant_generator", _yield_once),
    ):
        yield


uncompiled: Final = SharedContext(lambda: torch.compiler.set_stance("force_eager"))
_without_checkpointing: Final = SharedContext(_patched_checkpointing)


class _Direct:
    """Stands for torch's CheckpointFunction."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:  # noqa: ANN401, ARG004, FBT001 - torch's signature
        return function(*args)


def _yield_once(*_: object, **__: object) -> Iterator[None]:
    yield

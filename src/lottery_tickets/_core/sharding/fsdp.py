"""The door to `torch.distributed.fsdp.fully_shard` (FSDP2): what its modules compute with, gathered from the shards.

torch offers no public way to ask for that, so these few lines read private fields; a test tells when they move.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import Tensor, nn

MODULE: Final = "torch.distributed.fsdp"


def find_gathered(model: nn.Module, parameter: nn.Parameter) -> Tensor | None:
    """Returns what the modules compute with in place of a sharded parameter; None where it was never gathered."""
    for shared in _list_shared(model):
        if shared.sharded_param is parameter:
            gathered: Tensor | None = getattr(shared, "_unsharded_param", None)
            return gathered
    return None


def list_gathered(model: nn.Module) -> set[int]:
    """Returns the `id` of each parameter of a model that is under `fully_shard`."""
    return {id(shared.sharded_param) for shared in _list_shared(model)}


@contextlib.contextmanager
def gathering_others(model: nn.Module, shards: Mapping[int, Tensor]) -> Iterator[None]:
    """Within the block, modules gather other values than those of their parameters; no parameter is written.

    Args:
        model: Under `fully_shard`, it or parts of it.
        shards: By the `id` of a sharded parameter what is gathered in place of what lies here of it.
    """
    modules = _list_fsdp(model)
    if modules[:1] == [model]:
        modules[0]._get_fsdp_state()._lazy_init()  # noqa: SLF001 - else the first forward pass would undo what is done here
    before = []
    reshard(model)  # what was gathered before is not what is asked for
    try:
        for shared in _list_shared(model):
            values = shards.get(id(shared.sharded_param))
            if values is not None:
                before.append((shared, shared._sharded_param_data))  # noqa: SLF001 - see above
                padded = shared._sharded_param_data.clone()  # noqa: SLF001 - see above
                padded[: values.numel()] = values.reshape(-1)
                shared._sharded_param_data = padded  # noqa: SLF001 - see above
        yield
    finally:
        reshard(model)
        for shared, data in before:
            shared._sharded_param_data = data  # noqa: SLF001 - see above


def reshard(model: nn.Module) -> None:
    """Lets go of what was gathered, so that all modules have their sharded parameters."""
    for module in _list_fsdp(model):
        module.reshard()


@contextlib.contextmanager
def handing_gradients_on(model: nn.Module, handles: Mapping[int, Tensor]) -> Iterator[None]:
    """Within the block no sharded parameter keeps a gradient: handles get theirs, as if they had been computed with.

    Args:
        model: Under `fully_shard`, it or parts of it.
        handles: By the `id` of a sharded parameter.
    """

    def hand_on(parameter: Tensor) -> None:
        handle, gradient = handles.get(id(parameter)), parameter.grad
        parameter.grad = None
        if handle is not None and gradient is not None:
            handle.grad = gradient
            for hook in list((handle._post_accumulate_grad_hooks or {}).values()):  # noqa: SLF001 - torch has no public name for it
                hook(handle)

    parameters = [shared.sharded_param for shared in _list_shared(model)]
    before = [(p, p.grad, p._post_accumulate_grad_hooks) for p in parameters]  # noqa: SLF001 - as above
    try:
        for parameter in parameters:
            parameter.grad, parameter._post_accumulate_grad_hooks = None, {0: hand_on}  # noqa: SLF001 - as above
        yield
    finally:
        for parameter, gradient, hooks in before:
            parameter.grad, parameter._post_accumulate_grad_hooks = gradient, hooks  # noqa: SLF001 - as above


def _list_fsdp(model: nn.Module) -> list[Any]:
    fsdp = sys.modules.get(MODULE)
    if fsdp is None or not fsdp.FSDPModule.__subclasses__():  # `fully_shard` makes one of each class of module
        return []
    return [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]


def _list_shared(model: nn.Module) -> Iterator[Any]:
    for module in _list_fsdp(model):
        for group in module._get_fsdp_state()._fsdp_param_groups:  # noqa: SLF001 - see above
            yield from group.fsdp_params

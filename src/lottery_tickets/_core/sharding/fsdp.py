"""The door to `torch.distributed.fsdp.fully_shard` (FSDP2): what its modules compute with, gathered from the shards.

torch offers no public way to ask for that, so these few lines read private fields; a test tells when they move.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from lottery_tickets._core.sharding.dtensors import AnnouncedMessages, find_mesh

MODULE: Final = "torch.distributed.fsdp"


def find_gathered(model: nn.Module, parameter: Tensor) -> Tensor | None:
    """Returns what the modules compute with in place of a sharded parameter; None where it was never gathered."""
    for shared in _list_shared(model):
        if shared.sharded_param is parameter:
            gathered: Tensor | None = getattr(shared, "_unsharded_param", None)
            return gathered
    return None


def list_gathered(model: nn.Module) -> set[int]:
    """Returns the `id` of each parameter of a model that is under `fully_shard`."""
    initialise(model)  # whoever loads weights may have put other parameters there, which FSDP takes over then
    return {id(shared.sharded_param) for shared in _list_shared(model)}


@contextlib.contextmanager
def gathering_others(model: nn.Module, shards: Mapping[int, Tensor]) -> Iterator[None]:
    """Within the block, modules gather other values than those of their parameters; no parameter is written.

    Args:
        model: Under `fully_shard`, it or parts of it.
        shards: By the `id` of a sharded parameter what is gathered in place of what lies here of it.
    """
    initialise(model)  # else the first forward pass would undo what is done here
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


def find_class(module: nn.Module) -> type[nn.Module]:
    """Returns the class that a module had before `fully_shard` gave it one of its own."""
    fsdp = sys.modules.get(MODULE)
    if fsdp is None or not isinstance(module, fsdp.FSDPModule):
        return type(module)
    own: type[nn.Module] = type(module).__bases__[-1]
    return own


def find_split(model: nn.Module) -> DeviceMesh | None:
    """Returns the mesh over which modules compute with parts of weights, by tensor parallelism; None where none does.

    Args:
        model: Any; all processes that have a part of it call this.
    """
    gather_once(model)
    gathered = {id(shared.sharded_param): shared._unsharded_param for shared in _list_shared(model)}  # noqa: SLF001 - see above
    return find_mesh(gathered.get(id(parameter), parameter) for parameter in model.parameters())


def gather_once(model: nn.Module) -> None:
    """Lets each module gather its parameters once and let go of them, so that `find_gathered` finds them all."""
    if all(hasattr(shared, "_unsharded_param") for shared in _list_shared(model)):
        return
    initialise(model)
    for module in _list_fsdp(model):
        module.unshard()
        module.reshard()


@contextlib.contextmanager
def computing_with(model: nn.Module, handles: Mapping[int, Tensor]) -> Iterator[None]:
    """Within the block, modules compute with handles of what they gather; those without one are constants.

    Args:
        model: Under `fully_shard`, it or parts of it; all was gathered once.
        handles: By the `id` of a sharded parameter a tensor that shares the memory of what is gathered.
    """
    before = []
    try:
        for shared in _list_shared(model):
            parameter, own = shared.sharded_param, shared._unsharded_param  # noqa: SLF001 - see above
            before.append((shared, own, parameter.requires_grad))
            shared._unsharded_param = handles.get(id(parameter), own.detach())  # noqa: SLF001 - see above
            # FSDP makes what it gathers require gradients where the parameter does.
            parameter.requires_grad_(shared._unsharded_param.requires_grad)  # noqa: SLF001 - see above
        yield
    finally:
        for shared, own, is_trained in before:
            shared._unsharded_param = own  # noqa: SLF001 - see above
            shared.sharded_param.requires_grad_(is_trained)


@contextlib.contextmanager
def announcing(model: nn.Module, announce: Callable[[str], object]) -> Iterator[None]:
    """Within the block a function is called before each message of torch's; FSDP reduces no gradient.

    After it nothing is gathered, whatever happened.

    Args:
        model: Any.
        announce: Given what is about to be sent, the same in each process; it may raise.

    Raises:
        RuntimeError: Under `fully_shard` with torch before 2.13.
    """
    modules = _list_fsdp(model)
    _check_version(model)
    messages = contextlib.nullcontext() if find_split(model) is None else AnnouncedMessages(announce)
    before = [(group, group._all_gather_comm, group.reduce_grads) for group in _list_groups(model)]  # noqa: SLF001 - see above
    for place, (group, gather, _) in enumerate(before):
        group._all_gather_comm = _Announced(gather, partial(announce, f"the parameters {place}"))  # noqa: SLF001 - see above
        group.reduce_grads = False  # those that a caller has accumulated until now
    try:
        with messages:
            yield
    except BaseException:
        for module in modules:
            if module._get_fsdp_state()._is_root:  # noqa: SLF001 - see above
                module.reset_iter_state()  # what was underway when it was raised
        raise
    finally:
        for group, gather, reduces in before:
            group._all_gather_comm, group.reduce_grads = gather, reduces  # noqa: SLF001 - see above
        reshard(model)


def _check_version(model: nn.Module) -> None:
    """Raises a RuntimeError where this version of torch lets nobody announce what FSDP gathers, or end it midway."""
    is_old = any(not hasattr(module, "reset_iter_state") for module in _list_fsdp(model))
    if is_old or any(not hasattr(group, "_all_gather_comm") for group in _list_groups(model)):
        raise RuntimeError(
            "scores of data of a model under fully_shard need torch 2.13 or later, whose processes can be told before "
            f"they gather, but torch {torch.__version__} is installed; update it, or score before the model is sharded"
        )


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


def _list_groups(model: nn.Module) -> Iterator[Any]:
    seen = set()
    for module in _list_fsdp(model):
        state = module._get_fsdp_state()  # noqa: SLF001 - see above
        if id(state) not in seen:  # several modules may be gathered together
            yield from _list_groups_of(state)
        seen.add(id(state))


def _list_groups_of(state: Any) -> list[Any]:  # noqa: ANN401 - FSDP's
    """Returns what one call of `fully_shard` gathers together: from torch 2.13 on several groups, before it one."""
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)  # noqa: SLF001 - see above
    group = state._fsdp_param_group  # noqa: SLF001 - see above
    return [] if group is None else [group]


def _list_shared(model: nn.Module) -> Iterator[Any]:
    for group in _list_groups(model):
        yield from group.fsdp_params


def initialise(model: nn.Module) -> None:
    """Has FSDP do now what it does in the first forward pass: the outermost modules find those inside of them."""
    for module in _list_fsdp(model):
        module._get_fsdp_state()._lazy_init()  # noqa: SLF001 - see above


@final
@dataclass(frozen=True)
class _Announced:
    """FSDP's way to gather, with a function that is called before."""

    gather: Any
    announce: Callable[[], object]

    def allocate(self, *args: Any, **options: Any) -> Tensor:  # noqa: ANN401 - FSDP's protocol
        allocated: Tensor = self.gather.allocate(*args, **options)
        return allocated

    def __call__(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - FSDP's protocol
        self.announce()
        return self.gather(*args, **options)

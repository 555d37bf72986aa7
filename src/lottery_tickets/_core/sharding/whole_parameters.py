"""Parameters of a sharded model made whole for a moment: to be drawn, or computed with, as one process does."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from lottery_tickets._core.names import unwrap
from lottery_tickets._core.sharding.dtensors import is_sharded, see_local
from lottery_tickets._core.sharding.fsdp import initialise, reshard
from lottery_tickets._core.sharding.shards import Shards, find_shards

# Modules whose hooks gather weights, or share out what a module is given and returns.
SHARING: Final = ("torch.distributed.", "transformers.integrations.tensor_parallel")


@contextlib.contextmanager
def whole_parameters(module: nn.Module) -> Iterator[None]:
    """Within the block a module has its parameters whole, as plain tensors; what is written to them goes to the shards.

    All processes must write the same. A module that has plain parameters alone is as it is.

    Args:
        module: Each process holds all of its parameters meanwhile. It must not be run; what was gathered of its model
            was let go, see `reshard`.
    """
    inner = unwrap(module)
    sharded, shards = _find_sharded(inner)
    if shards is None:
        yield
        return
    with _holding_wholes(inner, sharded, shards) as wholes:
        yield
    with torch.no_grad():
        for name, parameter in sharded.items():
            see_local(parameter).copy_(shards.pieces[name].cut(wholes[name]))


@contextlib.contextmanager
def computing_whole(model: nn.Module) -> Iterator[None]:
    """Within the block a model is what it was before it was sharded, and each process computes with it by itself.

    Each holds all parameters as plain tensors, and no hook of torch's gathers, sends or shares out anything. What is
    written to the parameters is lost. A model that has plain parameters alone is as it is.

    Args:
        model: Under `fully_shard`, tensor parallelism or both; all processes that have its shards call this.
    """
    inner = unwrap(model)
    initialise(inner)  # FSDP takes over the parameters that it finds when it is first used
    reshard(inner)
    sharded, shards = _find_sharded(inner)
    if shards is None:
        yield
        return
    with _holding_wholes(inner, sharded, shards), _without_sharing_hooks(inner):
        yield


def _find_sharded(inner: nn.Module) -> tuple[dict[str, nn.Parameter], Shards | None]:
    sharded = {name: parameter for name, parameter in inner.named_parameters() if is_sharded(parameter)}  # tied once
    return sharded, find_shards(sharded)


@contextlib.contextmanager
def _holding_wholes(
    inner: nn.Module, sharded: Mapping[str, nn.Parameter], shards: Shards
) -> Iterator[Mapping[str, nn.Parameter]]:
    """Within the block whole parameters are in the place of sharded ones; yields them by name."""
    wholes = {name: _make_whole(parameter, shards, name) for name, parameter in sharded.items()}
    names = {id(parameter): name for name, parameter in sharded.items()}
    slots = [
        (owner._parameters, key, parameter)  # noqa: SLF001 - where a module looks itself
        for owner in inner.modules()
        for key, parameter in owner._parameters.items()  # noqa: SLF001 - as above
        if id(parameter) in names
    ]
    try:
        for parameters, key, parameter in slots:
            parameters[key] = wholes[names[id(parameter)]]
        yield wholes
    finally:
        for parameters, key, parameter in slots:
            parameters[key] = parameter


@contextlib.contextmanager
def _without_sharing_hooks(inner: nn.Module) -> Iterator[None]:
    """Within the block no module has the hooks of FSDP and of tensor parallelism around its forward."""
    before = []
    try:
        for module in inner.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):  # noqa: SLF001 - torch has no public list
                kept = {key: hook for key, hook in hooks.items() if not _shares_out(hook)}
                if len(kept) < len(hooks):
                    before.append((hooks, dict(hooks)))
                    hooks.clear()
                    hooks.update(kept)
        yield
    finally:
        for hooks, all_hooks in before:
            hooks.clear()
            hooks.update(all_hooks)


def _shares_out(hook: Any) -> bool:  # noqa: ANN401 - anything that can be called
    return str(getattr(hook, "__module__", "")).startswith(SHARING)


def _make_whole(parameter: nn.Parameter, shards: Shards, name: str) -> nn.Parameter:
    local = see_local(parameter)
    return nn.Parameter(shards.gather(name, local).to(local.device), parameter.requires_grad)

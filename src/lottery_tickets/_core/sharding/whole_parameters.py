"""Parameters of a sharded model made whole for a moment, so that whoever draws them draws what one process would."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from lottery_tickets._core.names import unwrap
from lottery_tickets._core.sharding.dtensors import is_sharded, see_local
from lottery_tickets._core.sharding.shards import Shards, find_shards


@contextlib.contextmanager
def whole_parameters(module: nn.Module) -> Iterator[None]:
    """Within the block a module has its parameters whole, as plain tensors; what is written to them goes to the shards.

    All processes must write the same. A module that has plain parameters alone is as it is.

    Args:
        module: Each process holds all of its parameters meanwhile. It must not be run; what was gathered of its model
            was let go, see `reshard`.
    """
    inner = unwrap(module)
    sharded = {name: parameter for name, parameter in inner.named_parameters() if is_sharded(parameter)}  # tied once
    shards = find_shards(sharded)
    if shards is None:
        yield
        return
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
        yield
    finally:
        for parameters, key, parameter in slots:
            parameters[key] = parameter
    with torch.no_grad():
        for name, parameter in sharded.items():
            see_local(parameter).copy_(shards.pieces[name].cut(wholes[name]))


def _make_whole(parameter: nn.Parameter, shards: Shards, name: str) -> nn.Parameter:
    local = see_local(parameter)
    return nn.Parameter(shards.gather(name, local).to(local.device), parameter.requires_grad)

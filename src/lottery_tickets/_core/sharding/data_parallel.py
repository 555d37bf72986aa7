"""Processes that train one model: `DistributedDataParallel`, and those that have its shards."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lottery_tickets._core.names import COMPILED, unwrap
from lottery_tickets._core.sharding.fsdp import find_class, reshard
from lottery_tickets._core.sharding.shards import find_shards
from lottery_tickets._core.sharding.together import ALONE, Processes, Together


def find_together(model: nn.Module) -> Together:
    """Returns the processes that train a model: those that have its shards, or as `find_data_parallel`.

    Raises:
        ValueError: When it is sharded and under `DistributedDataParallel` too.
    """
    parallel, inner = find_data_parallel(model), unwrap(model)
    reshard(inner)
    shards = find_shards(dict(inner.named_parameters()))
    if shards is None:
        return parallel
    if parallel is not ALONE:
        raise ValueError(
            "a sharded model must not be under DistributedDataParallel too, but is; give fully_shard a mesh of two "
            "dimensions, of which the first has copies"
        )
    return shards.together


def name_class(model: nn.Module) -> str:
    """Returns the name of a model's class, without what data parallelism and `fully_shard` made of it."""
    return find_class(model.module if isinstance(model, DistributedDataParallel) else model).__qualname__


def find_data_parallel(model: nn.Module) -> Together:
    """Returns the processes that a model is trained by, as `DistributedDataParallel` around it says; else this one."""
    inner = getattr(model, COMPILED, None)
    if isinstance(inner, nn.Module):
        return find_data_parallel(inner)
    if not isinstance(model, DistributedDataParallel):
        return ALONE
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return Processes([model.process_group], device)


def share_out(number: int, together: Together) -> int:
    """Returns how many of so many samples this process sees; the first processes see one more where it is uneven.

    Raises:
        ValueError: When a process would see none.
    """
    if number < together.num_processes:
        raise ValueError(
            f"each of {together.num_processes} processes must see a sample, but num_samples is {number}; raise it"
        )
    each, rest = divmod(number, together.num_processes)
    return each + (together.place < rest)

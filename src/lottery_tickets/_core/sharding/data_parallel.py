"""Processes that train one model: `DistributedDataParallel`, and those that have its shards."""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lottery_tickets._core.names import COMPILED, unwrap
from lottery_tickets._core.sharding.dtensors import find_mesh, match_dims
from lottery_tickets._core.sharding.fsdp import find_class, find_split, reshard
from lottery_tickets._core.sharding.shards import Shards, find_shards
from lottery_tickets._core.sharding.together import ALONE, Processes, Together


def find_together(model: nn.Module) -> Together:
    """Returns the processes that train a model: those that have its shards, or as `find_data_parallel`.

    Raises:
        ValueError: When it is sharded and under `DistributedDataParallel` too.
    """
    return _find_parallel(model)[0]


def _find_parallel(model: nn.Module) -> tuple[Together, Shards | None]:
    """Returns the processes that train a model, and its shards where it has some."""
    parallel, inner = find_data_parallel(model), unwrap(model)
    reshard(inner)
    shards = find_shards(dict(inner.named_parameters()))
    if shards is None:
        return parallel, None
    if parallel is not ALONE:
        raise ValueError(
            "a sharded model must not be under DistributedDataParallel too, but is; give fully_shard a mesh of two "
            "dimensions, of which the first has copies"
        )
    return shards.together, shards


@final
@dataclass(frozen=True)
class Readers:
    """Processes that run one model, and which of them see the same samples: those that compute with parts of weights.

    Attributes:
        together: All of them.
        alike: Those that see the same samples as this one, itself among them.
        apart: Those that see other samples, one for each group of processes that are alike, this one among them.
    """

    together: Together
    alike: Together
    apart: Together


def find_readers(model: nn.Module) -> Readers:
    """Returns the processes that train a model as `find_together` does, and who of them sees which samples.

    Args:
        model: Where it is sharded, all processes call this.

    Raises:
        ValueError: As `find_together`.
    """
    (together, shards), inner = _find_parallel(model), unwrap(model)
    mesh = None if shards is None else find_mesh(inner.parameters())
    split = None if mesh is None else find_split(inner)
    if split is None or mesh is None:
        return Readers(together, ALONE, together)
    dims = match_dims(split, mesh)
    others = [dim for dim in range(mesh.ndim) if dim not in dims]
    apart = Processes.of_mesh(mesh, others) if others else ALONE
    return Readers(together, Processes.of_mesh(mesh, dims), apart)


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

"""Models and tensors that are sharded over processes, and the plain ones that they must agree with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

MESHES: dict[tuple[int, ...], DeviceMesh] = {}  # made once in each process: each makes new groups


def make_mesh(*shape: int) -> DeviceMesh:
    """Returns the mesh of a shape, over all processes."""
    if shape not in MESHES:
        names = ("data", "tensor", "third")[: len(shape)]
        MESHES[shape] = init_device_mesh("cpu", shape, mesh_dim_names=names)
    return MESHES[shape]


def shard(tensor: Tensor, mesh: DeviceMesh, placements: Sequence[Any]) -> DTensor:
    """Returns a tensor that all processes have, shared out over a mesh."""
    return distribute_tensor(tensor, mesh, list(placements), src_data_rank=None)


def draw_placements(generator: np.random.Generator, mesh: DeviceMesh, num_dims: int) -> list[Any]:
    """Returns placements on a mesh: shards of any dimension, copies, and what tensor parallelism and FSDP make."""
    if mesh.ndim == 2 and num_dims and generator.random() < 0.5:
        dim = int(generator.integers(num_dims))
        return [_StridedShard(dim, split_factor=mesh.size(1)), Shard(dim)]
    return [
        Replicate() if not num_dims or generator.random() < 0.2 else Shard(int(generator.integers(num_dims)))
        for _ in range(mesh.ndim)
    ]


def shard_all(generator: np.random.Generator, tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> dict[str, Tensor]:
    """Returns tensors shared out in random ways; the first always, of others some are left as copies."""
    shared: dict[str, Tensor] = {}
    for place, (name, tensor) in enumerate(tensors.items()):
        if place and generator.random() < 0.2:
            shared[name] = tensor
        else:
            shared[name] = shard(tensor, mesh, draw_placements(generator, mesh, tensor.ndim))
    return shared


class Block(nn.Module):
    """Two linear layers with a norm, as in a transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the block's outputs."""
        outputs: Tensor = inputs + self.down(torch.relu(self.up(self.norm(inputs))))
        return outputs


class Stack(nn.Module):
    """Blocks and a layer for the classes; some sizes divide by no number of processes."""

    def __init__(self, width: int = 6, seed: int = 0, num_blocks: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(num_blocks)))
        self.head = nn.Linear(width, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the scores of the classes."""
        outputs: Tensor = self.head(self.blocks(inputs))
        return outputs


def make_sharded(kind: str, width: int = 6, dtype: torch.dtype = torch.float32, num_blocks: int = 2) -> Stack:
    """Returns a stack under "fsdp", "tensor" parallelism, or "both"; else as it is."""
    model, world = Stack(width, num_blocks=num_blocks).to(dtype), torch.distributed.get_world_size()
    mesh = make_mesh(2, world // 2) if kind == "both" else make_mesh(world)
    if kind in {"tensor", "both"}:
        plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        for block in model.blocks:
            parallelize_module(block, mesh["tensor"] if kind == "both" else mesh, plan)
    if kind in {"fsdp", "both"}:
        sub = mesh["data"] if kind == "both" else mesh
        for block in model.blocks:
            fully_shard(block, mesh=sub)
        fully_shard(model, mesh=sub)
        with torch.no_grad():  # after which the outermost module keeps what it has gathered
            model(torch.zeros(2, width, dtype=dtype))
    return model

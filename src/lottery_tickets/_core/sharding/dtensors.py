"""The door to `torch.distributed.tensor`: what a DTensor says of where its elements lie."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeGuard, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._python_dispatch import TorchDispatchMode

from lottery_tickets._core.sharding.pieces import Indices, Piece

MODULE: Final = "torch.distributed.tensor"
MESSAGES: Final = frozenset({"_c10d_functional", "_dtensor"})  # namespaces of the operators that send


def is_sharded(tensor: object) -> TypeGuard[Any]:
    """Returns whether a tensor is one of torch's DTensors. There is none where their module was never imported."""
    module = sys.modules.get(MODULE)
    return module is not None and isinstance(tensor, module.DTensor)


def refuse_sharded(model: nn.Module, what: str) -> None:
    """Raises a ValueError where a model is sharded, for what needs whole weights.

    Args:
        model: Any.
        what: That needs them, in the plural.
    """
    if any(map(is_sharded, model.parameters())):
        raise ValueError(
            f"{what} need whole weights, but the model is sharded (DTensor); use one that is not, under "
            "DistributedDataParallel where each process sees other samples; its mask fits the sharded model"
        )


def see_local(tensor: Tensor) -> Tensor:
    """Returns what lies here of a DTensor, without history; any other tensor as it is."""
    local: Tensor = tensor._local_tensor if is_sharded(tensor) else tensor  # noqa: SLF001 - to_local() is part of a history
    return local


def wrap(local: Tensor, piece: Piece) -> Tensor:
    """Returns what lies here as the DTensor that it is a piece of; a copy of a plain tensor as it is."""
    if piece.mesh is None:
        return local
    stride = torch.empty(piece.whole, device="meta").stride()
    return _wrap(local, piece.mesh, piece.placements, piece.whole, stride)


def wrap_like(local: Tensor, like: Tensor) -> Tensor:
    """Returns what lies here as a DTensor that is shared out as another one; itself where the other is plain."""
    if not is_sharded(like):
        return local
    return _wrap(local, like.device_mesh, like.placements, like.shape, like.stride())


def _wrap(
    local: Tensor, mesh: DeviceMesh, placements: Sequence[Any], shape: torch.Size, stride: tuple[int, ...]
) -> Tensor:
    from torch.distributed.tensor import DTensor  # noqa: PLC0415 - a second, and only who has one needs it

    wrapped: Tensor = DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)
    return wrapped


def gather(tensor: Tensor) -> Tensor:
    """Returns a DTensor whole, without history: all processes call this. Any other tensor as it is."""
    whole: Tensor = tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()
    return whole


def see_form(tensor: Tensor) -> Tensor:
    """Returns a tensor on the same device that has the whole shape of a DTensor and no memory; another one as it is."""
    if not is_sharded(tensor):
        return tensor
    form = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    form.untyped_storage().resize_(0)
    return form


@final
class AnnouncedMessages(TorchDispatchMode):
    """Within it a function is called before each message that a DTensor sends.

    Args:
        announce: Given what is about to be sent, the same in each process; it may raise.
    """

    def __init__(self, announce: Callable[[str], object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self._announce = announce

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's protocol
        """Announces an operator that sends, and calls it."""
        if any(issubclass(kind, sys.modules[MODULE].DTensor) for kind in types):
            return NotImplemented  # it is taken apart first, into what it computes here and what it sends
        if getattr(func, "namespace", None) in MESSAGES and "wait" not in str(func):
            self._announce(str(func))
        return func(*args, **(kwargs or {}))


def cut_like(whole: Tensor, like: Tensor) -> Tensor:
    """Returns a tensor that each process has whole, shared out as a DTensor is; itself where the other is plain."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 - a second, and only who has one needs it

    shared: Tensor = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return shared


def redistribute_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Returns a DTensor shared out as another one, as sums over processes where it held parts of them."""
    if not is_sharded(tensor) or not is_sharded(like) or tensor.placements == like.placements:
        return tensor
    redistributed: Tensor = tensor.redistribute(placements=like.placements)
    return redistributed


def find_mesh(tensors: Iterable[Tensor]) -> DeviceMesh | None:
    """Returns the largest mesh that the tensors are shared out over; None where all are plain.

    Raises:
        ValueError: When a mesh is no slice of the largest one.
    """
    meshes: list[DeviceMesh] = []
    for tensor in tensors:
        if is_sharded(tensor) and tensor.device_mesh not in meshes:
            meshes.append(tensor.device_mesh)
    if not meshes:
        return None
    largest = max(meshes, key=lambda mesh: mesh.ndim)
    for mesh in meshes:
        match_dims(mesh, largest)
    return largest


def find_piece(name: str, tensor: Tensor, largest: DeviceMesh) -> Piece:
    """Returns which elements of a tensor lie here.

    Args:
        name: Of the tensor, for errors.
        tensor: A DTensor; or a plain one, of which each process has a copy.
        largest: The mesh of all tensors.

    Raises:
        ValueError: When the DTensor holds partial sums, or is shared out in another way.
    """
    coordinate = list(largest.get_coordinate() or [])
    if not is_sharded(tensor):
        return Piece.of_all(tensor.shape, is_counted=not any(coordinate))
    indices = [np.arange(size) for size in tensor.shape]
    mesh = tensor.device_mesh
    dims = match_dims(mesh, largest)
    copied = [place for dim, place in enumerate(coordinate) if dim not in dims]
    for dim, placement in zip(dims, tensor.placements, strict=True):
        if placement.is_replicate():
            copied.append(coordinate[dim])
        elif hasattr(placement, "dim"):
            indices[placement.dim] = _take_share(indices[placement.dim], placement, largest.size(dim), coordinate[dim])
        else:
            raise ValueError(
                f"{name!r} must be sharded or replicated, but is {placement}; redistribute it, or reduce it first"
            )
    piece = Piece(tensor.shape, indices, is_counted=not any(copied), mesh=mesh, placements=tensor.placements)
    local = see_local(tensor).shape
    if piece.shape != local:
        raise ValueError(
            f"{name!r} must have {tuple(piece.shape)} of its {tuple(tensor.shape)} here by {tensor.placements}, but "
            f"has {tuple(local)}; was it made by from_local() with another shape?"
        )
    return piece


def _take_share(index: Indices, placement: Any, num_shares: int, place: int) -> Indices:  # noqa: ANN401 - a Placement
    """Returns the part of the indices that a place of a mesh's dimension has, by the rule of `torch.chunk`."""
    groups = _chunk(index, getattr(placement, "split_factor", 1))
    parts = [_pick(_chunk(group, num_shares), place) for group in groups]
    return np.concatenate(parts)


def _chunk(index: Indices, num_chunks: int) -> list[Indices]:
    size = -(-len(index) // num_chunks)
    return [index[start : start + size] for start in range(0, len(index), size)] if size else [index]


def _pick(chunks: list[Indices], place: int) -> Indices:
    return chunks[place] if place < len(chunks) else chunks[0][:0]


def match_dims(mesh: DeviceMesh, largest: DeviceMesh) -> list[int]:
    """Returns which dimensions of the largest mesh are those of another."""
    if mesh == largest:
        return list(range(mesh.ndim))
    names, all_names = mesh.mesh_dim_names, largest.mesh_dim_names
    if not names or not all_names or not set(names) <= set(all_names):
        raise ValueError(
            f"all weights must lie on one device mesh or slices of it, but there are {mesh} and {largest}; "
            "make the smaller one by mesh['name']"
        )
    return [all_names.index(name) for name in names]

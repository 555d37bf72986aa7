"""Which elements of a weight lie here, of a weight that is shared out over processes."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from lottery_tickets._core.sharding.together import Together

Indices = NDArray[np.int64]


@final
class Piece:
    """A block of a weight: along each dimension some of the indices, ascending.

    So elements that follow each other here, in C order, follow each other in the whole too, if with others between
    them: whoever keeps the first of equal ones here keeps the first in the whole.

    Args:
        whole: The shape of the weight.
        indices: Along each dimension those that lie here.
        is_counted: Whether the block counts here: of several processes that have it, one counts it.
        mesh: On which the DTensor lies that it is a piece of; None for a copy of a plain tensor.
        placements: Of the DTensor.
    """

    def __init__(
        self,
        whole: Sequence[int],
        indices: Sequence[Indices],
        *,
        is_counted: bool,
        mesh: DeviceMesh | None = None,
        placements: Sequence[Any] = (),
    ) -> None:
        self.whole: Final = torch.Size(whole)
        self.indices: Final = tuple(indices)
        self.is_counted: Final = is_counted
        self.mesh: Final = mesh
        self.placements: Final = tuple(placements)

    @classmethod
    def of_all(cls, whole: Sequence[int], *, is_counted: bool) -> "Piece":
        """Returns the piece that is the whole."""
        return cls(whole, [np.arange(size) for size in whole], is_counted=is_counted)

    @cached_property
    def shape(self) -> torch.Size:
        """The shape of the block."""
        return torch.Size(len(index) for index in self.indices)

    @cached_property
    def is_contiguous(self) -> bool:
        """Whether the elements follow each other in the whole without others between them."""
        if not self.shape.numel():
            return True
        span = self.locate(np.array([0, self.shape.numel() - 1]))
        return int(span[1] - span[0]) == self.shape.numel() - 1

    def locate(self, positions: Indices) -> Indices:
        """Returns where in the whole elements lie, both in C order."""
        if not self.indices:
            return positions
        here = np.unravel_index(positions, self.shape)
        there = [index[place] for index, place in zip(self.indices, here, strict=True)]
        return np.ravel_multi_index(there, self.whole).astype(np.int64) if math.prod(self.whole) else positions

    def find(self, positions: Indices) -> tuple[Indices, Indices]:
        """Returns which of some elements of the whole lie here, by their places in the list, and where they lie here.

        Args:
            positions: In the whole, in C order.
        """
        places, here = np.arange(len(positions)), list[Indices]()
        for index, coordinate in zip(self.indices, np.unravel_index(positions, self.whole), strict=True):
            found = np.searchsorted(index, coordinate[places])
            is_here = found < len(index)
            is_here[is_here] = index[found[is_here]] == coordinate[places][is_here]
            places, here = places[is_here], [axis[is_here] for axis in here] + [found[is_here]]
        if not self.indices:
            return places, positions
        return places, np.ravel_multi_index(here, self.shape).astype(np.int64) if len(places) else places

    def cut(self, tensor: Tensor) -> Tensor:
        """Returns the block of a tensor of the whole's shape; a view where it is one."""
        for dim, index in enumerate(self.indices):
            if _is_run(index):
                tensor = tensor.narrow(dim, int(index[0]) if len(index) else 0, len(index))
            else:
                tensor = tensor.index_select(dim, torch.from_numpy(index).to(tensor.device))
        return tensor

    def put_into(self, whole: Tensor, block: Tensor) -> None:
        """Writes the block into a tensor of the whole's shape."""
        if all(_is_run(index) for index in self.indices):
            self.cut(whole).copy_(block)
        else:
            whole[tuple(torch.from_numpy(index).to(whole.device) for index in np.ix_(*self.indices))] = block

    def is_as(self, other: "Piece") -> bool:
        """Returns whether another piece is the same block of a weight shared out alike."""
        return (
            self.whole == other.whole
            and (self.mesh, self.placements) == (other.mesh, other.placements)
            and all(np.array_equal(mine, its) for mine, its in zip(self.indices, other.indices, strict=True))
        )


def gather_whole(block: Tensor, piece: Piece, together: Together) -> Tensor:
    """Returns a weight whole, on the CPU, from the blocks of all processes.

    Each byte is the sum of one that lies in one process and of zeros, so no process needs memory for a second whole.
    """
    whole = torch.zeros(piece.whole, dtype=block.dtype, device=block.device)
    if piece.is_counted:
        piece.put_into(whole, block.detach())
    if whole.numel():
        together.add_up_(whole.view(-1).view(torch.uint8))
    return whole.cpu()


def _is_run(index: Indices) -> bool:
    return not len(index) or int(index[-1] - index[0]) == len(index) - 1

"""Where the elements of many weights lie, of weights that are shared out over processes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.sharding.dtensors import find_mesh, find_piece, is_sharded, see_local, wrap
from lottery_tickets._core.sharding.pieces import Piece, gather_whole
from lottery_tickets._core.sharding.together import Processes, Together


@final
@dataclass(frozen=True, eq=False)
class Shards:
    """What lies here of each weight, and the processes that have the rest.

    Attributes:
        pieces: By name, the same names in the same order everywhere.
        together: The processes.
    """

    pieces: Mapping[str, Piece]
    together: Together

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes over all processes, by name."""
        return {name: piece.whole for name, piece in self.pieces.items()}

    def part(self, names: Iterable[str]) -> "Shards":
        """Returns those of some weights."""
        return Shards({name: self.pieces[name] for name in names}, self.together)

    def count(self, here: Mapping[str, int]) -> dict[str, int]:
        """Returns the sums over all processes of what each has counted of each weight; copies count once."""
        return {name: counts[0] for name, counts in self.count_each({name: [n] for name, n in here.items()}).items()}

    def count_each(self, here: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Returns the same of several counts of each weight, equally many, in one message."""

        def take() -> NDArray[np.int64]:
            counts = [counts if self.pieces[name].is_counted else [0] * len(counts) for name, counts in here.items()]
            return np.array(counts, dtype=np.int64).reshape(-1)

        width = len(next(iter(here.values()), ()))
        sums = self.together.sum(len(here) * width, take).reshape(len(here), width)
        return {name: [int(count) for count in row] for name, row in zip(here, sums, strict=True)}

    def gather(self, name: str, block: Tensor) -> Tensor:
        """Returns a weight whole, on the CPU, from what lies in each process."""
        return gather_whole(block, self.pieces[name], self.together)

    def place(self, name: str, whole: Tensor) -> Tensor:
        """Returns what lies here of a tensor that each process has whole, as a DTensor whose values are on the CPU.

        Raises:
            ValueError: When there is no tensor of this name, or of another shape.
        """
        piece = self.pieces.get(name)
        if piece is None or piece.whole != whole.shape:
            known = "no tensor" if piece is None else f"one of shape {tuple(piece.whole)}"
            raise ValueError(f"{name!r} has shape {tuple(whole.shape)}, but the model has {known} of this name")
        if piece.mesh is None:
            return whole
        return wrap(piece.cut(whole).clone(memory_format=torch.contiguous_format), piece).cpu()

    def is_as(self, other: "Shards") -> bool:
        """Returns whether these weights are shared out alike in another model, in every process."""
        if self.pieces.keys() != other.pieces.keys():
            return False
        alike = self.together.gather(lambda: all(p.is_as(other.pieces[name]) for name, p in self.pieces.items()))
        return all(alike)


def find_shards(tensors: Mapping[str, Tensor]) -> Shards | None:
    """Returns where the elements of tensors lie; None when none is a DTensor, and all lie here.

    Raises:
        ValueError: When a DTensor is not sharded or replicated, or they lie on meshes that are not slices of one.
    """
    mesh = find_mesh(tensors.values())
    if mesh is None:
        return None
    pieces = {name: find_piece(name, tensor, mesh) for name, tensor in tensors.items()}
    return Shards(pieces, Processes.of_mesh(mesh))


def see_whole(tensors: Mapping[str, Tensor]) -> Callable[[str], Tensor]:
    """Returns what gives each tensor whole: of a DTensor all processes call it, and get it on the CPU."""
    shards = find_shards(tensors)

    def see(name: str) -> Tensor:
        tensor = tensors[name]
        return tensor if shards is None or not is_sharded(tensor) else shards.gather(name, see_local(tensor))

    return see

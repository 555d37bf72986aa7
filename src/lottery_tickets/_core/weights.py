"""`Weights`: named weights and the dimensions that number their outputs, read a block at a time.

Whatever ranks, counts or compares weights takes a `Weights` and reads blocks of its entries, so that it does not matter
where they lie. The source is a model's parameters or a mapping of tensors; scores of weights are such a mapping. Of
tensors that are shared out over processes (DTensor), each process sees its piece.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.sharding.dtensors import is_sharded, see_local
from lottery_tickets._core.sharding.pieces import Piece
from lottery_tickets._core.sharding.shards import Shards, find_shards
from lottery_tickets._core.sharding.together import ALONE, Together

LARGEST_COPY: Final = 1 << 18  # elements that are copied at once where a tensor is not contiguous
READERS: Final = 4  # blocks of files that are worked on at a time: while some wait for the disk, others compute
INTEGERS_BY_BYTES: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Weight(ABC):
    """A weight that masks are made for, or a score of each of its elements, wherever it lies.

    Attributes:
        name: As in `model.named_parameters()`, without what torch.compile and data parallelism put before it.
        output_dims: The dimensions that number the outputs; all others are one output's inputs.
    """

    name: str
    output_dims: tuple[int, ...]

    @property
    @abstractmethod
    def tensor(self) -> Tensor:
        """The parameter itself, for those who train or differentiate; others `read` or `pick`."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The shape of the parameter; of a piece, of what lies here."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of what `read` and `pick` give."""

    @property
    def piece(self) -> Piece | None:
        """Which elements of a weight that is shared out over processes these are; None where they are all."""
        return None

    @property
    def whole_shape(self) -> torch.Size:
        """The shape of the weight over all processes."""
        return self.shape if self.piece is None else self.piece.whole

    @property
    def is_counted(self) -> bool:
        """Whether its elements count here, and are not a copy that another process counts."""
        return self.piece is None or self.piece.is_counted

    @property
    def device(self) -> torch.device:
        """Where `read` and `pick` put what they give."""
        return torch.device("cpu")

    @property
    def is_contiguous(self) -> bool:
        """Whether a block in C order costs what it holds: `read` copies nothing but what it must fetch."""
        return True

    @property
    def is_in_memory(self) -> bool:
        """Whether `read` waits for nothing; if not, several should read at a time."""
        return True

    @property
    def is_exchangeable(self) -> bool:
        """Whether all elements are independent draws of one distribution: the first are as good a sample as any."""
        return False

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.shape.numel()

    def cut(self, step: int) -> Iterator[tuple[int, int]]:
        """Yields where blocks of so many elements start and stop, which together are all."""
        return ((start, min(start + step, self.size)) for start in range(0, self.size, step))

    @abstractmethod
    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns elements start to stop as a 1-D contiguous tensor without history, not to be written to.

        Args:
            start: The first element.
            stop: The one after the last.
            order: The dimensions, slowest first; C order when None.
        """

    @abstractmethod
    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the elements at these positions in C order, as a 1-D tensor without history."""


@final
@dataclass(frozen=True, eq=False)
class TensorWeight(Weight):
    """A weight that is a tensor in memory.

    Attributes:
        name: As in `Weight`.
        values: What lies here.
        output_dims: As in `Weight`.
        share: Which elements of the weight these are, where it is shared out over processes.
        whole: The DTensor that it is then.
    """

    name: str
    values: Tensor
    output_dims: tuple[int, ...] = (0,)
    share: Piece | None = None
    whole: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The parameter itself."""
        return self.values if self.whole is None else self.whole

    @property
    def piece(self) -> Piece | None:
        """Which elements of the weight lie here."""
        return self.share

    @property
    def shape(self) -> torch.Size:
        """The shape of the parameter."""
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        """The parameter's."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The parameter's."""
        return self.values.device

    @property
    def is_contiguous(self) -> bool:
        """Whether `read` copies nothing."""
        return self.values.is_contiguous()

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns elements start to stop, a view where they lie in this order."""
        tensor = self.values.detach()
        return slice_flat(tensor if order is None else tensor.permute(tuple(order)), start, stop)

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the elements at these positions."""
        tensor = self.values.detach()
        if self.is_contiguous and tensor.device.type == "cpu":
            # In numpy, because torch would wake all its threads for this little work.
            words = tensor.view(-1).view(INTEGERS_BY_BYTES[tensor.element_size()]).numpy()
            return torch.from_numpy(words[positions]).view(tensor.dtype)
        where = torch.from_numpy(positions).to(tensor.device)
        return tensor.view(-1)[where] if self.is_contiguous else tensor[torch.unravel_index(where, tensor.shape)]


@final
class Weights(Mapping[str, Weight]):
    """Weights by name, in one order.

    Args:
        weights: Each of another name.
        together: The processes that share them; this one alone by default.

    Examples:
        >>> weights = Weights.from_tensors({"fc.weight": torch.ones(3, 2)})
        >>> weights.num_weights, weights.shapes, weights["fc.weight"].read(1, 3).tolist()
        (6, {'fc.weight': torch.Size([3, 2])}, [1.0, 1.0])
    """

    def __init__(self, weights: Iterable[Weight], together: Together = ALONE) -> None:
        self._weights = {weight.name: weight for weight in weights}
        self.together = together

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], output_dims: Mapping[str, tuple[int, ...]] | None = None
    ) -> Self:
        """Returns a view of tensors by name.

        Args:
            tensors: Of any dtypes, shapes, strides and devices. Where one is a DTensor, each process has a copy of
                those that are not.
            output_dims: For each name the dimensions that number the outputs; (0,) where a name is missing.

        Raises:
            ValueError: When a DTensor is not sharded or replicated over one mesh.
        """
        dims, shards = output_dims or {}, find_shards(tensors)
        if shards is None:
            return cls(TensorWeight(name, tensor, dims.get(name, (0,))) for name, tensor in tensors.items())
        weights = (
            TensorWeight(name, see_local(tensor), dims.get(name, (0,)), shards.pieces[name], tensor)
            for name, tensor in tensors.items()
        )
        return cls(weights, shards.together)

    @property
    def num_weights(self) -> int:
        """How many elements all weights have together, over all processes."""
        return sum(weight.whole_shape.numel() for weight in self._weights.values())

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes by name, of what lies here."""
        return {name: weight.shape for name, weight in self._weights.items()}

    @property
    def whole_shapes(self) -> dict[str, torch.Size]:
        """The shapes by name, over all processes."""
        return {name: weight.whole_shape for name, weight in self._weights.items()}

    @property
    def shards(self) -> Shards | None:
        """Which elements lie here; None where they are all."""
        pieces = {name: weight.piece for name, weight in self._weights.items() if weight.piece is not None}
        return Shards(pieces, self.together) if pieces else None

    def count(self, here: Mapping[str, int]) -> dict[str, int]:
        """Returns the sums over all processes of what each has counted of each weight, see `Shards.count`."""
        shards = self.shards
        return dict(here) if shards is None else shards.count(here)

    @property
    def output_dims(self) -> dict[str, tuple[int, ...]]:
        """For each name the dimensions that number the outputs."""
        return {name: weight.output_dims for name, weight in self._weights.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parameters themselves by name, for those who train or differentiate."""
        return {name: weight.tensor for name, weight in self._weights.items()}

    def with_values(self, values: Mapping[str, Tensor]) -> "Weights":
        """Returns other values of the same weights, such as scores or an earlier state; further names are left out.

        Of a weight that is shared out they are what lies here, or a DTensor that is shared out alike.
        """
        given = {name: values[name] for name in self._weights}
        weights = (
            TensorWeight(
                name,
                see_local(value),
                self._weights[name].output_dims,
                self._weights[name].piece,
                value if is_sharded(value) else None,
            )
            for name, value in given.items()
        )
        return Weights(weights, self.together)

    def part(self, names: Iterable[str]) -> "Weights":
        """Returns some of the weights, in the order of the names."""
        return Weights((self._weights[name] for name in names), self.together)

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class WeightSource(ABC):
    """Weights that lie elsewhere than in a model, such as a checkpoint's files."""

    @abstractmethod
    def find_prunable(self, include: Any, exclude: Any) -> Weights:  # noqa: ANN401 - as `find_prunable_weights`, above
        """Returns the weights that are pruned, see `find_prunable_weights`.

        Args:
            include: Names, glob patterns or module types that replace the default choice; None for that.
            exclude: Those that are left out; None for none.
        """

    @abstractmethod
    def write_pruned(self, mask: Any, output: Path) -> None:  # noqa: ANN401 - a Mask, which lies above
        """Writes a copy of all there is, with the weights that a mask prunes set to zero.

        Args:
            mask: The `Mask`.
            output: Where to.
        """


def slice_flat(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Returns elements start to stop in C order as a 1-D contiguous tensor, copying little more than these."""
    if tensor.is_contiguous():
        return tensor.view(-1)[start:stop]
    if tensor.numel() <= LARGEST_COPY:
        return tensor.reshape(-1)[start:stop]
    row = tensor.numel() // len(tensor)
    first, last = start // row, -(-stop // row)
    if row <= LARGEST_COPY:
        return tensor[first:last].reshape(-1)[start - first * row : stop - first * row]
    parts = [slice_flat(tensor[i], max(start - i * row, 0), min(stop - i * row, row)) for i in range(first, last)]
    return torch.cat(parts)

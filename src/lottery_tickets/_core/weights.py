"""`Weights`: named weights and the dimensions that number their outputs, read a block at a time.

Whatever ranks, counts or compares weights takes a `Weights` and reads blocks of its entries, so that it does not matter
where they lie. The source is a model's parameters or a mapping of tensors; scores of weights are such a mapping.
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
        """The shape of the parameter."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of what `read` and `pick` give."""

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
    """A weight that is a tensor in memory."""

    name: str
    values: Tensor
    output_dims: tuple[int, ...] = (0,)

    @property
    def tensor(self) -> Tensor:
        """The parameter itself."""
        return self.values

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
        return slice_flat(tensor if order is None else tensor.permute(*order), start, stop)

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

    Examples:
        >>> weights = Weights.from_tensors({"fc.weight": torch.ones(3, 2)})
        >>> weights.num_weights, weights.shapes, weights["fc.weight"].read(1, 3).tolist()
        (6, {'fc.weight': torch.Size([3, 2])}, [1.0, 1.0])
    """

    def __init__(self, weights: Iterable[Weight]) -> None:
        self._weights = {weight.name: weight for weight in weights}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], output_dims: Mapping[str, tuple[int, ...]] | None = None
    ) -> Self:
        """Returns a view of tensors by name.

        Args:
            tensors: Of any dtypes, shapes, strides and devices.
            output_dims: For each name the dimensions that number the outputs; (0,) where a name is missing.
        """
        dims = output_dims or {}
        return cls(TensorWeight(name, tensor, dims.get(name, (0,))) for name, tensor in tensors.items())

    @property
    def num_weights(self) -> int:
        """How many elements all weights have together."""
        return sum(weight.size for weight in self._weights.values())

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes by name."""
        return {name: weight.shape for name, weight in self._weights.items()}

    @property
    def output_dims(self) -> dict[str, tuple[int, ...]]:
        """For each name the dimensions that number the outputs."""
        return {name: weight.output_dims for name, weight in self._weights.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parameters themselves by name, for those who train or differentiate."""
        return {name: weight.tensor for name, weight in self._weights.items()}

    def with_values(self, values: Mapping[str, Tensor]) -> "Weights":
        """Returns other values of the same weights, such as scores or an earlier state; further names are left out."""
        return Weights(TensorWeight(name, values[name], weight.output_dims) for name, weight in self._weights.items())

    def part(self, names: Iterable[str]) -> "Weights":
        """Returns some of the weights, in the order of the names."""
        return Weights(self._weights[name] for name in names)

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

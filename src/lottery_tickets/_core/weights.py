"""`Weights`: named weights and the dimensions that number their outputs, read a block at a time.

Whatever ranks, counts or compares weights takes a `Weights` and reads blocks of its entries, so that it does not matter
where they lie. The source is a model's parameters or a mapping of tensors; scores of weights are such a mapping.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST_COPY: Final = 1 << 18  # elements that are copied at once where a tensor is not contiguous
INTEGERS_BY_BYTES: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@final
@dataclass(frozen=True, eq=False)
class Weight:
    """A weight that masks are made for, or a score of each of its elements.

    Attributes:
        name: As in `model.named_parameters()`, without what torch.compile and data parallelism put before it.
        tensor: The parameter itself, for those who train or differentiate; others `read` or `pick`.
        output_dims: The dimensions that number the outputs; all others are one output's inputs.
    """

    name: str
    tensor: Tensor
    output_dims: tuple[int, ...] = (0,)

    @property
    def shape(self) -> torch.Size:
        """The shape of the parameter."""
        return self.tensor.shape

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.tensor.numel()

    @property
    def dtype(self) -> torch.dtype:
        """Of what `read` and `pick` give."""
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        """Where `read` and `pick` put what they give."""
        return self.tensor.device

    @property
    def is_contiguous(self) -> bool:
        """Whether `read` copies nothing."""
        return self.tensor.is_contiguous()

    def cut(self, step: int) -> Iterator[tuple[int, int]]:
        """Yields where blocks of so many elements start and stop, which together are all."""
        return ((start, min(start + step, self.size)) for start in range(0, self.size, step))

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns elements start to stop as a 1-D contiguous tensor without history, not to be written to.

        Args:
            start: The first element.
            stop: The one after the last.
            order: The dimensions, slowest first; C order when None.
        """
        tensor = self.tensor.detach()
        return slice_flat(tensor if order is None else tensor.permute(*order), start, stop)

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the elements at these positions in C order, as a 1-D tensor without history."""
        tensor = self.tensor.detach()
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
        return cls(Weight(name, tensor, dims.get(name, (0,))) for name, tensor in tensors.items())

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
        return Weights(Weight(name, values[name], weight.output_dims) for name, weight in self._weights.items())

    def part(self, names: Iterable[str]) -> "Weights":
        """Returns some of the weights, in the order of the names."""
        return Weights(self._weights[name] for name in names)

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


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

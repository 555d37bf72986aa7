"""Uniform random numbers, one a weight, which are drawn where they are read and never held all at once."""

import threading
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.tensor_files.buffers import take_buffer
from lottery_tickets._core.weights import Weight, Weights, slice_flat

DRAWS_PER_BLOCK: Final = 1 << 22


def draw(number: int, generator: torch.Generator) -> Tensor:
    """Returns so many numbers in [0, 1), float64 and 1-D.

    It has 53 random bits, so that equal draws, which would favour earlier places, do not happen in practice.
    """
    numbers = torch.from_numpy(take_buffer(number * torch.float64.itemsize)).view(torch.float64)
    return torch.rand(number, generator=generator, dtype=torch.float64, out=numbers)


def draw_weights(
    shapes: Mapping[str, torch.Size], output_dims: Mapping[str, tuple[int, ...]], generator: torch.Generator
) -> Weights:
    """Returns numbers for weights of these shapes, which a generator gives one weight after the other.

    Args:
        shapes: By name.
        output_dims: As in `Weights.from_tensors`.
        generator: Of the CPU; what it gives later is not changed.
    """
    sequence, start, weights = _Sequence(generator.get_state()), 0, []
    for name, shape in shapes.items():
        weights.append(_DrawnWeight(name, shape, output_dims.get(name, (0,)), sequence, start))
        start += shape.numel()
    return Weights(weights)


@final
class _Sequence:
    """What a generator gives from its state on, from any place: states on the way are kept, once they are known."""

    def __init__(self, state: Tensor) -> None:
        self._states = {0: state}
        self._places = [0]
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> Tensor:
        """Returns the numbers from start to stop."""
        generator = torch.Generator()
        with self._lock:
            generator.set_state(self._find(start))
            if stop not in self._states:
                numbers = draw(stop - start, generator)
                self._keep(stop, generator)
                return numbers
        return draw(stop - start, generator)

    def _find(self, place: int) -> Tensor:
        """Returns the state at a place, to which the generator runs from the last one before it that is known."""
        if place not in self._states:
            known = self._places[int(np.searchsorted(self._places, place)) - 1]
            generator = torch.Generator()
            generator.set_state(self._states[known])
            for start in range(known, place, DRAWS_PER_BLOCK):
                draw(min(DRAWS_PER_BLOCK, place - start), generator)
            self._keep(place, generator)
        return self._states[place]

    def _keep(self, place: int, generator: torch.Generator) -> None:
        self._states[place] = generator.get_state()
        self._places.insert(int(np.searchsorted(self._places, place)), place)


@final
class _DrawnWeight(Weight):
    """Numbers for one weight.

    Args:
        name: Of the weight.
        shape: Of the weight.
        output_dims: As in `Weight`.
        sequence: Of the numbers for all weights.
        start: Where those for this one begin.
    """

    def __init__(
        self, name: str, shape: torch.Size, output_dims: tuple[int, ...], sequence: _Sequence, start: int
    ) -> None:
        self.name = name
        self.output_dims = output_dims
        self._shape = shape
        self._sequence = sequence
        self._start = start
        self._turned: tuple[tuple[int, ...], Tensor] | None = None

    @property
    def tensor(self) -> Tensor:
        """All numbers."""
        return self.read(0, self.size).view(self.shape)

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """float64."""
        return torch.float64

    @property
    def is_exchangeable(self) -> bool:
        """They are."""
        return True

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns numbers start to stop; in another order than C all are drawn and kept."""
        if order is None or list(order) == sorted(order):
            return self._sequence.read(self._start + start, self._start + stop)
        if self._turned is None or self._turned[0] != tuple(order):
            self._turned = tuple(order), self.tensor.permute(*order).contiguous()
        return slice_flat(self._turned[1], start, stop)

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the numbers at these positions, and draws those between them in turn."""
        parts = [torch.empty(0, dtype=self.dtype)]
        for start, stop in self.cut(DRAWS_PER_BLOCK):
            here = positions[np.searchsorted(positions, start) : np.searchsorted(positions, stop)]
            if len(here):
                parts.append(self.read(start, int(here[-1]) + 1)[torch.from_numpy(here - start)])
        return torch.cat(parts)

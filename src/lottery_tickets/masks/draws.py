"""Uniform random numbers, one a weight, which are drawn where they are read and never held all at once."""

import threading
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.kernels.drawing_cpu import NUM_DRAWN, advance, draw_from, seed_state
from lottery_tickets._core.sharding.pieces import Piece
from lottery_tickets._core.sharding.shards import Shards
from lottery_tickets._core.tensor_files.buffers import take_buffer
from lottery_tickets._core.weights import Weight, Weights, slice_flat

DRAWS_PER_BLOCK: Final = 1 << 22


def draw_weights(
    shapes: Mapping[str, torch.Size],
    output_dims: Mapping[str, tuple[int, ...]],
    seed: int,
    shards: Shards | None = None,
) -> Weights:
    """Returns numbers in [0, 1) for weights of these shapes, float64, which a CPU generator gives one after the other.

    They have 53 random bits, so that equal draws, which would favour earlier places, do not happen in practice.

    Args:
        shapes: By name, over all processes.
        output_dims: As in `Weights.from_tensors`.
        seed: Of the generator; they are what `torch.rand` gives then.
        shards: Where the weights lie, of a sharded model: the numbers of what lies here are drawn.
    """
    sequence, start, weights = _Sequence(seed), 0, []
    pieces = {} if shards is None else shards.pieces
    for name, shape in shapes.items():
        weights.append(_DrawnWeight(name, shape, output_dims.get(name, (0,)), sequence, start, pieces.get(name)))
        start += shape.numel()
    return Weights(weights) if shards is None else Weights(weights, shards.together)


@final
class _Sequence:
    """What a generator gives, from any place: states on the way are kept, once they are known.

    To come to a place costs less than to draw what lies before it. So that is what one thread does at a time; numbers
    are drawn by all of them.
    """

    def __init__(self, seed: int) -> None:
        self._states = {0: advance(seed_state(seed), 1)}
        self._known = [0]
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> Tensor:
        """Returns the numbers from start to stop."""
        with self._lock:
            state = self._find(start // NUM_DRAWN)
            self._find(stop // NUM_DRAWN)  # where somebody will go on
        numbers = take_buffer((stop - start) * np.dtype(np.float64).itemsize).view(np.float64)
        draw_from(state, start % NUM_DRAWN, numbers)
        return torch.from_numpy(numbers)

    def _find(self, number: int) -> NDArray[np.uint32]:
        """Returns a state, to which one comes from the last one before it that is known."""
        if number not in self._states:
            known = self._known[bisect_right(self._known, number) - 1]
            self._states[number] = advance(self._states[known], number - known)
            insort(self._known, number)
        return self._states[number]


@final
class _DrawnWeight(Weight):
    """Numbers for one weight.

    Args:
        name: Of the weight.
        whole: The shape of the weight.
        output_dims: As in `Weight`.
        sequence: Of the numbers for all weights.
        start: Where those for this one begin.
        piece: What lies here of it; None for all.
    """

    def __init__(  # noqa: PLR0917 - called once, above
        self,
        name: str,
        whole: torch.Size,
        output_dims: tuple[int, ...],
        sequence: _Sequence,
        start: int,
        piece: Piece | None,
    ) -> None:
        self.name = name
        self.output_dims = output_dims
        self._whole = whole
        self._sequence = sequence
        self._start = start
        self._piece = piece
        self._kept: tuple[tuple[int, ...], Tensor] | None = None  # in an order in which they are not drawn
        if piece is not None and piece.is_contiguous and piece.shape.numel():
            self._start += int(piece.locate(np.array([0]))[0])

    @property
    def tensor(self) -> Tensor:
        """All numbers."""
        return self.read(0, self.size).view(self.shape)

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        return self._whole if self._piece is None else self._piece.shape

    @property
    def piece(self) -> Piece | None:
        """What lies here."""
        return self._piece

    @property
    def dtype(self) -> torch.dtype:
        """float64."""
        return torch.float64

    @property
    def is_exchangeable(self) -> bool:
        """They are."""
        return True

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:
        """Returns numbers start to stop; where they are not drawn in this order, all are drawn and kept."""
        wanted = tuple(range(len(self.shape)) if order is None else order)
        is_drawn_so = self._piece is None or self._piece.is_contiguous
        if is_drawn_so and list(wanted) == sorted(wanted):
            return self._sequence.read(self._start + start, self._start + stop)
        if self._kept is None or self._kept[0] != wanted:
            self._kept = wanted, self._draw_all().permute(wanted).contiguous()
        return slice_flat(self._kept[1], start, stop)

    def _draw_all(self) -> Tensor:
        if self._piece is None or self._piece.is_contiguous:
            return self.tensor
        numbers = self._sequence.read(self._start, self._start + self._whole.numel()).view(self._whole)
        return self._piece.cut(numbers)

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the numbers at these positions, and draws those between them in turn."""
        parts = [torch.empty(0, dtype=self.dtype)]
        for start, stop in self.cut(DRAWS_PER_BLOCK):
            here = positions[np.searchsorted(positions, start) : np.searchsorted(positions, stop)]
            if len(here):
                parts.append(self.read(start, int(here[-1]) + 1)[torch.from_numpy(here - start)])
        return torch.cat(parts)

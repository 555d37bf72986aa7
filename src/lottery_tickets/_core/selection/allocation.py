"""How many weights each layer keeps, where the scope decides that by more than one comparison of magnitudes."""

import threading
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import count_bits, unpack_bits
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.patterns import count_eligible
from lottery_tickets._core.sharding.pieces import Piece
from lottery_tickets._core.weights import TensorWeight, Weight, Weights


def allocate_erk(shapes: Mapping[str, tuple[int, ...]], capacities: Mapping[str, int], num_kept: int) -> dict[str, int]:
    """Returns how many weights each layer keeps at a density proportional to sum(shape) / prod(shape).

    A layer whose share exceeds its capacity keeps its capacity, and the rest is shared anew. Fractions are rounded by
    the largest remainder (the earlier layer where equal), so the total is exact. Erdős-Rényi-Kernel, Evci et al.,
    arXiv:1911.11134.

    Args:
        shapes: Of each layer.
        capacities: How many weights a layer can keep at most.
        num_kept: How many all layers together keep, at most the sum of the capacities.

    Examples:
        >>> shapes = {"a": (2, 4), "b": (3, 6, 7), "c": (7, 4)}
        >>> allocate_erk(shapes, {"a": 8, "b": 126, "c": 28}, 81)
        {'a': 8, 'b': 45, 'c': 28}
    """
    # A layer keeps epsilon * sum(shape) weights, as the product is its size. A 0-D weight counts as of shape (1,).
    parts = {name: sum(shape) or 1 for name, shape in shapes.items() if capacities[name]}
    counts = dict.fromkeys(shapes, 0)
    rest = num_kept
    # In integers, so that rounding decides nothing.
    while full := [name for name, part in parts.items() if rest * part >= capacities[name] * sum(parts.values())]:
        for name in full:
            counts[name] = capacities[name]
            rest -= capacities[name]
            del parts[name]
    total = sum(parts.values())
    for name, part in parts.items():
        counts[name] = rest * part // total
    by_remainder = sorted(parts, key=lambda name: -(rest * parts[name] % total))
    for name in by_remainder[: rest - sum(counts[name] for name in parts)]:
        counts[name] += 1
    return counts


def allocate_lamp(scores: Weights, within: Mapping[str, Tensor] | None, num_kept: int) -> dict[str, int]:
    """Returns how many weights each layer keeps when LAMP scores are compared over all layers, `num_kept` in all.

    The LAMP score grows with the magnitude inside a layer, so the counts decide everything. Memory: 8 bytes a weight;
    of weights in files 24 bytes a weight of one layer, whose scores are computed again in each pass. Where processes
    share the weights, each sees one layer whole at a time.
    Lee et al., arXiv:2010.07611.

    Args:
        scores: Finite.
        within: For each name the packed bits of the eligible ones.
        num_kept: The total, at most the number of eligible weights.

    Examples:
        >>> allocate_lamp(Weights.from_tensors({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.1, 0.1])}), None, 3)
        {'a': 1, 'b': 2}
    """
    latest = _Latest()
    together = scores.together

    def rank(name: str, score: Weight) -> Weight:
        eligible = None if within is None else within[name]
        if not score.is_in_memory:
            return _LampScores(score, eligible, latest)
        values = together.gather(lambda: _take_eligible(score, eligible))
        lamp = _score_layer(torch.cat(values))
        if score.piece is None:
            return TensorWeight(name, lamp)
        # Each process ranks a share of them, whichever: only how many are kept is asked.
        share = np.array_split(np.arange(len(lamp)), together.num_processes)[together.place]
        piece = Piece(lamp.shape, [share], is_counted=True)
        return TensorWeight(name, piece.cut(lamp).clone(), (0,), piece)

    ranked = Weights([rank(name, score) for name, score in scores.items()], together)
    return count_eligible(ranked, select_largest(ranked, num_kept))


def _take_eligible(score: Weight, within: Tensor | None) -> Tensor:
    """Returns the values here that count, 1-D."""
    if not score.is_counted:
        return torch.empty(0, dtype=score.dtype)
    values = score.read(0, score.size)
    return (values if within is None else values[unpack_bits(within, values.shape).to(values.device)]).cpu()


def _score_layer(values: Tensor) -> Tensor:
    """Returns the LAMP scores of a layer, ascending: each square over the sum of itself and all greater ones.

    Args:
        values: Of the eligible weights, on the CPU, in any order.
    """
    magnitudes = values.to(torch.float64).abs()
    magnitudes.numpy().sort()  # in place, where torch's makes an index too
    if len(magnitudes) == 0 or magnitudes[-1] == 0:
        return torch.zeros_like(magnitudes)
    # Over the largest, so that no square overflows; the scores are ratios and stay the same.
    squares = magnitudes.div_(magnitudes[-1].clone()).square_()
    tails = squares.flip(0).cumsum_(0).flip(0)
    return squares.div_(tails)


@final
class _Latest:
    """The scores of the layer that was asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name: str | None = None
        self._scores = torch.empty(0)

    def find(self, score: Weight, within: Tensor | None) -> Tensor:
        """Returns the LAMP scores of a layer."""
        with self._lock:
            if self._name != score.name:
                self._scores = torch.empty(0)  # let go before the next ones are made
                self._name, self._scores = score.name, _score_layer(_take_eligible(score, within))
            return self._scores


@final
class _LampScores(Weight):
    """The LAMP scores of a layer in a file, computed where they are looked at."""

    def __init__(self, score: Weight, within: Tensor | None, latest: _Latest) -> None:
        self.name, self.output_dims = score.name, (0,)
        self._score, self._within, self._latest = score, within, latest
        self._size = score.size if within is None else count_bits(within)

    @property
    def tensor(self) -> Tensor:
        """All scores of the layer."""
        return self._latest.find(self._score, self._within)

    @property
    def shape(self) -> torch.Size:
        """As many as there are eligible weights."""
        return torch.Size((self._size,))

    @property
    def dtype(self) -> torch.dtype:
        """float64."""
        return torch.float64

    def read(self, start: int, stop: int, order: Sequence[int] | None = None) -> Tensor:  # noqa: ARG002 - of one dimension
        """Returns scores start to stop."""
        return self.tensor[start:stop]

    def pick(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the scores at these positions."""
        return self.tensor[torch.from_numpy(positions)]

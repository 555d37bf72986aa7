"""Two masks laid over each other: how many weights they share and differ in, beside what chance gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from lottery_tickets._core.bits import count_bits, count_common_bits
from lottery_tickets._core.sharding.shards import Shards


@final
@dataclass(frozen=True)
class Overlap:
    """Counts over the weights of one layer.

    Attributes:
        num_weights: How many weights there are.
        num_kept: How many each of the two masks keeps.
        num_both: How many both keep.
    """

    num_weights: int
    num_kept: tuple[int, int]
    num_both: int

    @property
    def expected_both(self) -> float:
        """How many two independent masks of these densities both keep on average (hypergeometric)."""
        first, second = self.num_kept
        return first * second / self.num_weights if self.num_weights else 0.0

    @property
    def num_different(self) -> int:
        """How many weights only one of the masks keeps: the Hamming distance."""
        return sum(self.num_kept) - 2 * self.num_both

    @property
    def expected_different(self) -> float:
        """How many two independent masks of these densities differ in on average."""
        return sum(self.num_kept) - 2 * self.expected_both


@final
@dataclass(frozen=True)
class Distance:
    """How far two masks are apart.

    Attributes:
        raw: The share of the weights that only one of them keeps, from 0 to 1.
        chance: What two independent masks with the same density in each layer have on average.
    """

    raw: float
    chance: float

    @property
    def corrected(self) -> float:
        """The distance in units of chance: 0 for equal masks, about 1 for unrelated ones; 0 where chance is 0."""
        return self.raw / self.chance if self.chance else 0.0


def measure_distance(layers: Iterable[Overlap]) -> Distance:
    """Returns how far two masks are apart over some layers together."""
    overlaps = list(layers)
    total = max(1, sum(layer.num_weights for layer in overlaps))
    different = sum(layer.num_different for layer in overlaps)
    return Distance(different / total, sum(layer.expected_different for layer in overlaps) / total)


def overlay(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], sizes: Mapping[str, int], shards: Shards | None = None
) -> dict[str, Overlap]:
    """Returns the overlap of two masks in each layer.

    Args:
        first: Packed bits by parameter name.
        second: Packed bits of the same parameters.
        sizes: How many weights each parameter has, over all processes.
        shards: Where the bits of both lie in a sharded model.
    """
    here = {
        name: [count_bits(bits), count_bits(second[name]), count_common_bits(bits, second[name])]
        for name, bits in first.items()
    }
    counts = here if shards is None else shards.count_each(here)
    return {name: Overlap(sizes[name], (kept, also), both) for name, (kept, also, both) in counts.items()}

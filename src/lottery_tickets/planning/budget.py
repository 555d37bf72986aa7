"""Phases of an analysis beside the memory there is: the largest moment, whether it fits, and the batch that would."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from lottery_tickets._core.memory.sizes import Parts
from lottery_tickets.planning.phases import Phase

MARGIN: Final = 1.1  # over what is counted: what kernels take inside, and gaps of the allocator


@final
@dataclass(frozen=True)
class Budget:
    """The memory there is.

    Attributes:
        num_bytes: Of it; None where it is not known.
        on_gpu: Whether what lies on the CPU is not counted against it.
    """

    num_bytes: float | None
    on_gpu: bool

    def count(self, phase: Phase) -> int:
        """Returns the bytes of a phase that are counted against it, without those of the model."""
        return sum(phase.device.values()) + (0 if self.on_gpu else sum(phase.host.values()))

    def find_largest(self, phases: Sequence[Phase]) -> Phase:
        """Returns the phase that takes the most; of equal ones the first."""
        return max(phases, key=self.count)

    def fits(self, model: Parts, phase: Phase) -> bool | None:
        """Returns whether a model and a phase do, with a tenth on top of what comes beside the model."""
        if self.num_bytes is None:
            return None
        return sum(model.values()) + MARGIN * self.count(phase) <= self.num_bytes

    def find_batch_size(
        self, model: Parts, first: Sequence[Phase], second: Sequence[Phase], sizes: tuple[int, int]
    ) -> int | None:
        """Returns the largest batch that fits, by the line through two of them; 0 where none does.

        Args:
            model: Bytes by part.
            first: The phases with batches of the first size.
            second: Those with batches of the second.
            sizes: Of the batches.
        """
        if self.num_bytes is None:
            return None
        limit = (self.num_bytes - sum(model.values())) / MARGIN
        least = math.inf
        for one, other in zip(first, second, strict=True):
            slope = (self.count(other) - self.count(one)) / (sizes[1] - sizes[0])
            offset = self.count(one) - slope * sizes[0]
            if offset > limit:
                return 0
            if slope > 0:
                least = min(least, (limit - offset) / slope)
        return None if least == math.inf else max(0, math.floor(least))

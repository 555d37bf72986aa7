"""Has a ranking settled? The mask of n samples beside that of 2n."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from lottery_tickets._core.bits import count_bits
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.weights import Weights

FIRST_STOP: Final = 64


@dataclass
class Settling:
    """Compares the masks at 64, 128, 256, ... samples, until the last doubling changed few of the kept weights.

    For independent samples the estimates of n and of 2n differ by as much, in variance, as the estimate of 2n differs
    from the truth: Var(S_n - S_2n) = s^2 / 2n = Var(S_2n - S). So the share that a doubling has changed estimates the
    share that the mask still lies off, without any assumption on the distribution of the gradients.

    Attributes:
        compute_scores: Returns the scores so far.
        sparsity: At which the ranking matters.
        scope: What is compared with what.
        tolerance: The share of the kept weights that may still change.
        history: (samples, share changed) at each look but the first.
    """

    compute_scores: Callable[[], tuple[int, Weights]]
    sparsity: float
    scope: str
    tolerance: float
    history: list[tuple[int, float]] = field(default_factory=list)
    _bits: dict[str, Tensor] | None = None

    def is_settled(self) -> bool:
        """Looks at the scores and returns whether the last doubling changed no more than the tolerance."""
        num_samples, scores = self.compute_scores()
        bits = select_in_scope(scores, self.sparsity, scope=self.scope)
        before, self._bits = self._bits, bits
        if before is None:
            return False
        kept = sum(scores.count({name: count_bits(own) for name, own in bits.items()}).values())
        both = sum(scores.count({name: count_bits(own & before[name]) for name, own in bits.items()}).values())
        self.history.append((num_samples, 1 - both / kept if kept else 0.0))
        return self.history[-1][1] <= self.tolerance


def list_stops(limit: int) -> list[int]:
    """Returns the numbers of samples at which to look whether the ranking has settled: 64, then double the last.

    Args:
        limit: The most samples that are read; no doubling is listed that reaches it, for there is nothing left to
            spare. The 64 are listed whatever the limit.
    """
    stops = [FIRST_STOP]
    while stops[-1] * 2 < limit:
        stops.append(stops[-1] * 2)
    return stops

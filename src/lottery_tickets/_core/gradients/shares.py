"""Sums of which each process keeps its piece: no process ever holds more than one weight's values whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.sums import Totals, ValueSums, add_uses, compute_marks
from lottery_tickets._core.gradients.uses import Use
from lottery_tickets._core.sharding.dtensors import gather
from lottery_tickets._core.sharding.in_step import InStep
from lottery_tickets._core.weights import Weights


@final
class Shares:
    """Adds the values of a pass to sums; where weights are shared out, over all processes, each to its piece.

    The values of one weight are added up whole until all its places have had their gradients. Then they are summed over
    the processes, and each keeps what lies there.

    Args:
        weights: Whose values are summed.
        step: The processes.

    Attributes:
        takes_part: Whether what this process adds counts. If not, it only makes the calls that the others make.
    """

    def __init__(self, weights: Weights, step: InStep) -> None:
        self.takes_part = True
        self.is_shared = weights.shards is not None
        self._weights, self._step = weights, step
        self._whole: dict[str, list[ValueSums]] = {}
        self._num_places: Mapping[str, int] = {}
        self._num_done: Counter[str] = Counter()

    def begin(self, num_places: Mapping[str, int]) -> None:
        """Begins a backward pass.

        Args:
            num_places: Of each weight that was used, how many places will be added.
        """
        self._num_places, self._num_done = num_places, Counter()

    def add(
        self,
        sums: Sequence[ValueSums],
        place: Place,
        uses: Sequence[Use],
        weight: Tensor,
        block_elements: int | None,
        *,
        watched: int | None = None,
    ) -> Tensor | None:
        """Adds the values at a place to sums of what lies here, or nothing without uses; see `add_uses`."""
        marks, name = None, place.name
        whole = self._open(name, sums, weight) if self.is_shared else sums
        if self.is_shared:
            weight = self._see(name, whole, weight)
        if uses and self.takes_part:
            marks = self._add_own(whole, place, uses, weight, block_elements, watched=watched)
        self._num_done[name] += 1
        if self.is_shared and not self._num_done[name] % self._num_places[name]:
            self._close(name, sums, weight)
        return marks

    def finish(self, sums: Sequence[ValueSums], weights: Mapping[str, Tensor]) -> None:
        """Ends the backward pass, also for weights that had no gradient at some place.

        Args:
            sums: Of what lies here.
            weights: As the passes compute with them.
        """
        if self.is_shared:
            for name in self._num_places:
                if name in self._whole or not self._num_done[name]:
                    self._close(name, sums, weights[name])

    def scale_(self, total: Tensor, place: Place, factor: float) -> None:
        """Multiplies what lies here of a place."""
        piece = self._weights[place.name].piece
        if piece is None:
            place.of(total).mul_(factor)
            return
        factors = torch.ones(piece.whole, dtype=total.dtype, device=total.device)
        place.of(factors).mul_(factor)
        total.mul_(piece.cut(factors))

    def _add_own(
        self,
        sums: Sequence[ValueSums],
        place: Place,
        uses: Sequence[Use],
        weight: Tensor,
        block_elements: int | None,
        *,
        watched: int | None,
    ) -> Tensor | None:
        """Adds the values of those samples that this process is to work on, of all that it sees; see `add_uses`."""
        num_samples = uses[0].num_samples
        own = self._step.take_own(num_samples)
        if own == slice(0, num_samples):
            return add_uses(sums, place, uses, weight, block_elements, watched=watched)
        if own.start < own.stop:
            add_uses(sums, place, [use.take(own) for use in uses], weight, block_elements)
        if watched is None:
            return None
        return compute_marks([use.take(slice(watched, watched + 1)) for use in uses], block_elements)

    def _see(self, name: str, sums: Sequence[ValueSums], weight: Tensor) -> Tensor:
        """Returns a weight whole; what has its form alone where no value looks at it, or nothing but that lies here."""
        if weight.untyped_storage().size():
            return weight
        if not any(part.value.needs_weights for part in sums):
            return sums[0].totals[name]
        self._step.meet(f"the weight {name}")  # its module was let go before this use was known, or has a part of it
        return gather(self._weights[name].tensor).to(weight)

    def _open(self, name: str, sums: Sequence[ValueSums], weight: Tensor) -> list[ValueSums]:
        """Returns sums of a whole weight, zero at first."""
        if name not in self._whole:
            self._whole[name] = [ValueSums(here.value, Totals({name: weight}, None)) for here in sums]
        return self._whole[name]

    def _close(self, name: str, sums: Sequence[ValueSums], weight: Tensor) -> None:
        """Adds the sums of a whole weight to what each process keeps, and lets them go."""
        self._open(name, sums, weight)
        whole, piece = self._whole.pop(name), self._weights[name].piece
        self._step.add_up_(f"the values of {name}", [part.totals[name] for part in whole])
        if piece is not None:
            for here, part in zip(sums, whole, strict=True):
                total = here.totals[name]
                total.add_(piece.cut(part.totals[name]).to(total.device))

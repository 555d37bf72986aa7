"""What one check of an early-bird watch compares: ranks, masks and movement, against the check before and the start."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, final

from torch import Tensor

from lottery_tickets._core.bits import count_different_bits
from lottery_tickets._core.measuring.displacement import Displacement, measure_displacement, sum_displacements
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.states import pick
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.rank_correlation import correlate_ranks, rank_shares
from lottery_tickets.early_bird.snapshots import Snapshot, take_snapshot
from lottery_tickets.masks.common_weights import measure_distance, overlay

FEW: Final = 1 << 22  # weights, of which the ranks at the start are kept; of more, memory is worth more than their time

Bits = Mapping[str, Tensor]


@final
class Evidence:
    """The memory of a watch: what the next check is compared with.

    Args:
        weights: At the start.
        sparsity: Of the masks.
        scope: Of the masks.
        queue_length: Masks in the queue, the newest among them.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        sparsity: float,
        scope: str,
        queue_length: int,
    ) -> None:
        self._sparsity, self._scope = sparsity, scope
        self.sizes = {name: shape.numel() for name, shape in weights.whole_shapes.items()}
        self._shards = weights.shards
        self._start_mask = self.mask = self._select(weights)
        self._queue: deque[Bits] = deque(maxlen=max(1, queue_length - 1))  # those before the newest
        self._snapshot = take_snapshot(weights)
        self._start_snapshot = self._snapshot if sum(self.sizes.values()) <= FEW else None

    def add(self, weights: Weights, start: Weights, snapshot: Snapshot) -> dict[str, Any]:
        """Returns the figures of a check by the names of `EarlyBirdCheckpoint`, and remembers these weights.

        Args:
            weights: Now, finite.
            start: The starting weights, on the CPU.
            snapshot: Of the weights now.
        """
        mask = self._select(weights)
        ranks = correlate_ranks(self._snapshot, snapshot)
        start_ranks = correlate_ranks(self._start_snapshot or take_snapshot(start), snapshot, by_layer=False)
        since, since_start = (
            overlay(mask, earlier, self.sizes, self._shards) for earlier in (self.mask, self._start_mask)
        )
        queue_distances = [self._measure_raw(mask, old) for old in self._queue]
        moved = sum_displacements(weights, {n: measure_displacement(weight, start[n]) for n, weight in weights.items()})
        self._queue.append(mask)
        self._snapshot, self.mask = snapshot, mask
        last, first = measure_distance(since.values()), measure_distance(since_start.values())
        return {
            "correlation": ranks.overall,
            "start_correlation": start_ranks.overall,
            "mask_distance": last.raw,
            "chance_distance": last.chance,
            "corrected_distance": last.corrected,
            "queue_distances": queue_distances,
            "start_distance": first.raw,
            "start_chance_distance": first.chance,
            "corrected_start_distance": first.corrected,
            **_sum_up(moved, self.sizes),
            "layers": {
                name: {
                    "correlation": ranks.layers[name],
                    "mask_distance": measure_distance([since[name]]).raw,
                    "chance_distance": measure_distance([since[name]]).chance,
                    "start_distance": measure_distance([since_start[name]]).raw,
                    "start_chance_distance": measure_distance([since_start[name]]).chance,
                    "density": since[name].num_kept[0] / max(1, size),
                    "share_moved": moved[name].num_moved / max(1, size),
                }
                for name, size in self.sizes.items()
            },
        }

    def describe_nonfinite(self) -> dict[str, Any]:
        """Returns the figures of a check of weights that are not finite: None, and nothing by layer."""
        names = ("correlation", "start_correlation", "mask_distance", "chance_distance", "corrected_distance")
        more = ("start_distance", "start_chance_distance", "corrected_start_distance", "share_moved", "movement")
        figures: dict[str, Any] = dict.fromkeys((*names, *more))
        return {**figures, "queue_distances": [], "layers": {}}

    def rank_shares(self) -> dict[str, Tensor]:
        """Returns the ranks at the last check, see `rank_correlation.rank_shares`."""
        return rank_shares(self._snapshot)

    def state(self) -> dict[str, Tensor]:
        """Returns what `load_state` needs."""
        masks = {f"queue.{place}.{name}": bits for place, mask in enumerate(self._queue) for name, bits in mask.items()}
        ranks = {f"ranks.{name}": codes for name, codes in self._snapshot.codes.items()}
        return {**masks, **ranks}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a state, in evidence made of the same starting weights.

        Raises:
            ValueError: When the state is of other weights.
        """
        num_masks = len({name.split(".")[1] for name in state if name.startswith("queue.")})
        masks = [
            {name: pick(state, f"queue.{place}.{name}", bits) for name, bits in self._start_mask.items()}
            for place in range(num_masks)
        ]
        ranks = {name: pick(state, f"ranks.{name}", codes) for name, codes in self._snapshot.codes.items()}
        self._queue.clear()
        self._queue.extend(masks)
        self.mask = self._queue[-1] if self._queue else self._start_mask
        self._snapshot = Snapshot(ranks, self._shards)

    def check_mask(self, bits: Bits) -> None:
        """Raises a ValueError where a saved mask is not of these weights."""
        for name, own in self._start_mask.items():
            pick(bits, name, own)

    def _measure_raw(self, mask: Bits, other: Bits) -> float:
        here = {name: count_different_bits(bits, other[name]) for name, bits in mask.items()}
        different = here if self._shards is None else self._shards.count(here)
        return sum(different.values()) / max(1, sum(self.sizes.values()))

    def _select(self, weights: Weights) -> Bits:
        return select_in_scope(weights, self._sparsity, scope=self._scope)


def _sum_up(moved: Mapping[str, Displacement], sizes: Mapping[str, int]) -> dict[str, float]:
    distance, start = (
        math.sqrt(sum(getattr(part, name) for part in moved.values())) for name in ("squared_distance", "squared_start")
    )
    return {
        "share_moved": sum(part.num_moved for part in moved.values()) / max(1, sum(sizes.values())),
        "movement": distance / start if start else float(distance > 0),
    }

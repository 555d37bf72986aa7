"""Where a sample of the weights has gone, check by check: does training pull them somewhere, or do they diffuse?

Independent steps are nearly at right angles in many dimensions: a random walk has no direction. Training that learns
goes on where it was going. So the cosine between the latest movement and the path before it tells the two apart,
whatever their sizes are. Each tensor is divided by its norm first, because shrinking or growing as a whole is no
movement of a ranking.
"""

import math
from collections.abc import Mapping
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.determinism import make_generator
from lottery_tickets._core.weights import Weights

NUM_SAMPLED: Final = 1 << 18  # weights: the cosine of two random walks is 0.002 on average then
STANDARD_DEVIATIONS: Final = 4


@final
class Trail:
    """A sample of the weights, spread over all tensors, at the start and at the last two checks.

    Args:
        weights: At the start.
        seed: Decides which are sampled.
    """

    def __init__(self, weights: Weights, seed: int) -> None:
        share = min(1.0, NUM_SAMPLED / max(1, weights.num_weights))
        self._places = {name: _draw_places(weight.size, share, seed, name) for name, weight in weights.items()}
        self.num_sampled = sum(places.size for places in self._places.values())
        self._points = [self._look(weights)]  # the start, then the last two
        self._dot = self._lengths = 0.0

    def extend(self, weights: Weights) -> None:
        """Adds where the weights are now."""
        point = self._look(weights)
        if len(self._points) > 2:  # noqa: PLR2004 - the start and two points
            start, before, last = self._points
            # Not the movement just before this one: an optimizer's momentum carries over from that.
            step, path = point - last, before - start
            self._dot += float(step @ path)
            self._lengths += math.sqrt(float(step @ step) * float(path @ path))
            self._points = [start, last, point]
        else:
            self._points.append(point)

    @property
    def persistence(self) -> float | None:
        """The mean cosine between a movement and the path before it, weighted by lengths; None before the third check.

        1 goes straight on, 0 is a random walk, below 0 goes back.
        """
        return self._dot / self._lengths if self._lengths > 0 else None

    @property
    def chance(self) -> float:
        """What a random walk exceeds once in 30,000 times: 4 standard deviations of a cosine in so many dimensions."""
        return STANDARD_DEVIATIONS / math.sqrt(max(1, self.num_sampled))

    def state(self) -> dict[str, Tensor]:
        """Returns what `load_state` needs."""
        sums = torch.tensor([self._dot, self._lengths], dtype=torch.float64)
        return {"trail.points": torch.stack(self._points), "trail.sums": sums}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a state; the trail must have been made of the same starting weights and seed."""
        self._points = list(state["trail.points"])
        self._dot, self._lengths = state["trail.sums"].tolist()

    def _look(self, weights: Weights) -> Tensor:
        parts = []
        for name, places in self._places.items():
            values = weights[name].pick(places).to("cpu", torch.float32)
            parts.append(values / values.norm().clamp_min(torch.finfo(torch.float32).tiny))
        return torch.cat(parts) if parts else torch.empty(0)


def _draw_places(size: int, share: float, seed: int, name: str) -> NDArray[np.int64]:
    if share >= 1:
        return np.arange(size)
    num_drawn = min(size, max(1, round(share * size)))
    places: NDArray[np.int64] = torch.randint(size, (num_drawn,), generator=make_generator(seed, "trail", name)).numpy()
    return places

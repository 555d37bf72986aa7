"""Some places of many weights, whose values are looked at again and again, wherever they lie."""

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.weights import Weights

Places = NDArray[np.int64]


@final
class Followed:
    """Places of weights; of weights that are shared out over processes, each looks at its own and tells the others.

    Args:
        weights: All.
        places: By name, in C order of the whole weight.

    Attributes:
        here: By name those of the places that lie here, in C order of what lies here.
    """

    def __init__(self, weights: Weights, places: Mapping[str, Places]) -> None:
        self._together = weights.together
        self._places = places
        self._pieces = {} if weights.shards is None else weights.shards.pieces
        found = {name: piece.find(places[name]) for name, piece in self._pieces.items()}
        self.here = {name: places[name] if name not in found else found[name][1] for name in places}
        self._which = {name: which for name, (which, _) in found.items()}

    def pick(self, weights: Weights) -> dict[str, Tensor]:
        """Returns the values at all places, float32 on the CPU, by name."""
        return self.join({name: weights[name].pick(here).to("cpu", torch.float32) for name, here in self.here.items()})

    def join(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the values at all places from those that lie here, in every process."""
        if not self._pieces:
            return dict(values)
        counted = {name: piece for name, piece in self._pieces.items() if piece.is_counted}
        parts = self._together.gather(lambda: {name: (self._which[name], values[name]) for name in counted})
        joined = {name: torch.zeros(len(places)) for name, places in self._places.items()}
        for part in parts:
            for name, (which, there) in part.items():
                joined[name][torch.from_numpy(which)] = there
        return joined

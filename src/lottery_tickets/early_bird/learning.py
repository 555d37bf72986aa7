"""Has a network learnt from its inputs, and do its ranked weights carry that? What each check measures on a probe.

A gap between the loss of samples with exchanged targets and with their own is what a network owes to the pairing of
inputs and targets. Three things can make one without a ticket, and each has a null of its own:

- the starting weights, by luck: the gap must have risen since the start;
- memorised samples, where they are trained on: at the start, a step on one half must open a gap on the other half;
- a head that learns on a body that does not: the ranked weights must have moved down the gradient of the loss at the
  start, which movement that does not know of the data does as often up; and without what they moved, the gap must
  close. The latter alone would not do: a head follows a body that moves as noise does, and fits it alone.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, TypedDict, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lottery_tickets._core.determinism import make_generator
from lottery_tickets._core.sharding.dtensors import gather, see_local
from lottery_tickets._core.states import pick, pick_at_most_one
from lottery_tickets._core.weights import TensorWeight, Weights
from lottery_tickets.early_bird.followed import Followed
from lottery_tickets.early_bird.history import PartEvidence
from lottery_tickets.early_bird.probe import Measure, Outcome
from lottery_tickets.early_bird.sign_flips import compare_signs

NUM_SAMPLED: Final = 1 << 15  # weights, spread over all tensors, whose gradients are kept
MOST_PARTS: Final = 4
SMALLEST_PART: Final = 1000  # weights; of fewer, signs say little
MOST_STEPPED: Final = 1 << 26  # weights, whose gradient is held whole for the step at the start
STEP: Final = 1e-3  # of the norm, or what the dtype can resolve


class LearningFigures(TypedDict):
    """What a check measures on a probe; explained in `EarlyBirdCheckpoint`. None without a probe."""

    held_out: bool | None
    probe_loss: float | None
    start_probe_loss: float | None
    gap: float | None
    start_gap: float | None
    gap_spread: float | None
    gap_z: float | None
    gap_p: float | None
    rise_p: float | None
    worse_p: float | None
    learnable_p: float | None
    parts: list[PartEvidence]


@final
class Learning:
    """What a network does on a probe at the start, with which each check is compared.

    Args:
        measure: On the probe.
        model: At the start.
        weights: Those that are ranked.
        seed: Of the weights that are followed.
    """

    def __init__(self, measure: Measure, model: nn.Module, weights: Weights, seed: int) -> None:
        self.measure = measure
        self._together = weights.together
        self._parts = [weights.part(names) for names in _split(weights)]
        self._start = measure(model)
        self._gaps = self._start.gaps  # as they were looked at last
        self._followed = Followed(weights, _draw_places(weights, seed))
        self._before: dict[str, Tensor] = {}  # the starting weights at these places
        self._gradient = self._differentiate(model, weights)
        self._learnable_p = None if measure.probe.held_out else self._try_to_learn(model, weights)

    def look(self, model: nn.Module, weights: Weights, start: Weights) -> LearningFigures:
        """Returns what a model does on the probe now, and where its weights went; none is put back.

        Args:
            model: As it is.
            weights: Its ranked weights.
            start: The starting weights.
        """
        now, before = self.measure(model), self._start
        gap = compare_signs(now.gaps)
        self._gaps = now.gaps
        if not self._before:
            self._before = self._followed.pick(start)
        values = self._followed.pick(weights)
        figures: LearningFigures = {
            "held_out": self.measure.probe.held_out,
            "probe_loss": _mean(now.losses),
            "start_probe_loss": _mean(before.losses),
            "gap": _mean(now.gaps),
            "start_gap": _mean(before.gaps),
            "gap_spread": _find_spread(now.gaps, self.measure),
            "gap_z": gap.z,
            "gap_p": gap.p,
            "rise_p": compare_signs(now.gaps - before.gaps).p,
            "worse_p": compare_signs(now.losses - before.losses).p,
            "learnable_p": self._learnable_p,
            "parts": [self._follow(part, values) for part in self._parts],
        }
        return self._together.gather(lambda: figures)[0]  # one verdict, also where processes round in other ways

    def put_back(self, model: nn.Module, weights: Weights, start: Weights, part: PartEvidence) -> PartEvidence:
        """Returns the figures of a part with how much the gap closes without what it moved.

        Args:
            model: As it was looked at.
            weights: Its ranked weights.
            start: The starting weights.
            part: As `look` found it.
        """
        replaced = {name: _undo(weights[name].tensor, start[name].tensor) for name in part["weights"]}
        here = compare_signs(self._gaps - self.measure(model, replaced).gaps)
        closing = self._together.gather(lambda: here)[0]
        return {**part, "closing_z": closing.z, "closing_p": closing.p}

    def state(self) -> dict[str, Tensor]:
        """Returns what `load_state` needs."""
        learnable = [] if self._learnable_p is None else [self._learnable_p]
        gradients = {f"gradient.{name}": values for name, values in self._gradient.items()}
        return {
            "probe.gaps": self._start.gaps,
            "probe.losses": self._start.losses,
            "probe.learnable": torch.tensor(learnable, dtype=torch.float64),
            **gradients,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a state, of the same probe and starting weights.

        Raises:
            ValueError: When it is of others.
        """
        gaps, losses = (pick(state, f"probe.{name}", getattr(self._start, name)) for name in ("gaps", "losses"))
        learnable = pick_at_most_one(state, "probe.learnable")
        gradient = {name: pick(state, f"gradient.{name}", own) for name, own in self._gradient.items()}
        self._start, self._learnable_p, self._gradient = Outcome(gaps, losses), learnable, gradient

    def _differentiate(self, model: nn.Module, weights: Weights) -> dict[str, Tensor]:
        sums = {name: torch.zeros(len(places)) for name, places in self._followed.here.items()}

        def take(name: str, gradient: Tensor) -> None:
            picked = TensorWeight(name, see_local(gradient)).pick(self._followed.here[name])
            sums[name] += picked.to("cpu", torch.float32)

        self.measure.differentiate(model, weights, take)
        return self._followed.join(sums)

    def _follow(self, part: Weights, values: Mapping[str, Tensor]) -> PartEvidence:
        products = []
        for name in part:
            now, before = values[name], self._before[name]
            products.append(self._gradient[name] * (before * _find_scale(now, before) - now))
        along = compare_signs(torch.cat(products))
        return {
            "weights": list(part),
            "num_weights": part.num_weights,
            "along_z": along.z,
            "along_p": along.p,
            "closing_z": None,
            "closing_p": None,
        }

    def _try_to_learn(self, model: nn.Module, weights: Weights) -> float:
        """Returns how often fair signs open as much of a gap on one half as a small step on the other half does."""
        pieces = self.measure.pieces
        first, second = pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]
        chosen = weights.part(_list_at_most(weights, MOST_STEPPED))
        sums = {name: torch.zeros_like(weight.tensor) for name, weight in chosen.items()}

        def take(name: str, gradient: Tensor) -> None:
            sums[name] += gradient

        self.measure.differentiate(model, chosen, take, first, of_gap=True)
        norms = [
            math.sqrt(sum(_sum(tensor.detach().double().square()) for tensor in tensors.values()))
            for tensors in (chosen.tensors, sums)
        ]
        if not norms[1]:
            return 1.0
        finest = max(torch.finfo(weight.dtype).eps for weight in chosen.values())
        by = max(STEP, 2 * finest) * (norms[0] or 1.0) / norms[1]
        stepped = {name: weight.tensor.detach() + by * sums[name] for name, weight in chosen.items()}
        before, after = self.measure(model, pieces=second), self.measure(model, stepped, second)
        return compare_signs(after.gaps - before.gaps).p


def without_probe() -> LearningFigures:
    """Returns the figures of a check that has no probe."""
    return {
        **dict.fromkeys(name for name in LearningFigures.__annotations__),  # type: ignore[typeddict-item] # all but one
        "parts": [],
    }


def _mean(values: Tensor) -> float | None:
    mean = float(values.mean())
    return mean if math.isfinite(mean) else None


def _find_spread(gaps: Tensor, measure: Measure) -> float | None:
    """Returns the root mean square of the gap of a pair; a unit is the mean of several where no pairs are told."""
    square = _mean(gaps.square() * (measure.num_samples / (2 * len(gaps))))
    return None if square is None else math.sqrt(square)


def _find_scale(now: Tensor, before: Tensor) -> float:
    """Returns what weights have grown or shrunk by as a whole, which moves no ranking."""
    square = _sum(before.double().square())
    return _sum(now.double() * before.double()) / square if square else 0.0


def _sum(numbers: Tensor) -> float:
    """Returns the sum of all elements; of a DTensor over all processes, where `float` would see this one's part."""
    return float(gather(numbers.sum()))


def _undo(now: Tensor, before: Tensor) -> Tensor:
    """Returns the starting weights, as large along themselves as the weights are now."""
    there = before.to(now.device, now.dtype)
    return there * _find_scale(now.detach(), there)


def _split(weights: Weights) -> Iterator[list[str]]:
    """Yields the names of each part: whole layers in order, at most 4 parts, none too small but the only one."""
    least = max(SMALLEST_PART, math.ceil(weights.num_weights / MOST_PARTS) if len(weights) > MOST_PARTS else 0)
    names: list[str] = []
    size = 0
    left = weights.num_weights
    for name, weight in weights.items():
        names.append(name)
        size, left = size + weight.whole_shape.numel(), left - weight.whole_shape.numel()
        if size >= least and (left >= least or not left):
            yield names
            names, size = [], 0
    if names:
        yield names


def _list_at_most(weights: Weights, most: int) -> list[str]:
    """Returns the names of the first weights that are not more than so many together; at least one."""
    totals = np.cumsum([shape.numel() for shape in weights.whole_shapes.values()])
    return list(islice(weights, max(1, int((totals <= most).sum()))))


def _draw_places(weights: Weights, seed: int) -> dict[str, NDArray[np.int64]]:
    """Returns the places that are followed, none twice: of small tensors all, of large ones a share."""
    share, least = NUM_SAMPLED / max(1, weights.num_weights), NUM_SAMPLED // (2 * max(1, len(weights)))
    drawn: dict[str, NDArray[np.int64]] = {}
    for name, shape in weights.whole_shapes.items():
        size = shape.numel()
        num = max(least, round(share * size))
        drawn[name] = np.arange(size)
        if num < size:
            places = torch.randint(size, (num,), generator=make_generator(seed, "followed", name))
            drawn[name] = places.unique().numpy()
    return drawn

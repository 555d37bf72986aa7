"""Can the gradients of a batch be told apart by sample? Found out on the model and the data at hand.

The marks of a sample's gradients (`marks`), found in a batch, must be those of this sample alone; where that does not
decide, two samples are compared with each alone. So a layer that mixes samples, or an input whose samples are not its
first dimension, is found. Processes that share the weights decide together.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, final

import torch
from torch import Tensor

from lottery_tickets._core.batches.samples import find_different, pick_samples
from lottery_tickets._core.gradients.passes import Passes, SingleSample, WholeBatch
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.sums import compute_marks
from lottery_tickets._core.gradients.tracking import NotSeparableError
from lottery_tickets._core.gradients.uses import Use
from lottery_tickets._core.sharding.in_step import InStep

logger = logging.getLogger(__name__)

# How far the squares of norms of one sample, computed in two ways, may lie apart: by rounding and the ReLUs that it
# flips. Samples that are mixed up differ by tens of percent.
TOLERANCE: Final = 1e-2  # also for float64 weights: many models compute norms and losses in float32
LOW_PRECISION_TOLERANCE: Final = 0.1
# In tolerances and norms, for sums: that of what rounding changes is a few of its norms at most.
SUMS_TOLERANCE: Final = 5
MOST_PAIRS_TRIED: Final = 4


@final
class Separation:
    """Whether whole batches may be run.

    Args:
        passes: That are compared.
        block_elements: The most gradients to work on at once; None for what suits the device.
        step: The processes.

    Attributes:
        reason: Why samples are run one at a time; None when whole batches are.
        verified: Whether batches of more samples (True), and of one (False), are known to come out right.
    """

    def __init__(self, passes: Passes, block_elements: int | None, step: InStep) -> None:
        self.passes, self.block_elements, self.step = passes, block_elements, step
        self.reason: str | None = None
        self.verified: set[bool] = set()

    def run_whole(self, batch: object, size: int, *, proves: bool = False) -> WholeBatch | None:
        """Returns a batch after its forward pass; None where the gradients of some process cannot be told apart.

        Args:
            batch: To run.
            size: Its number of samples.
            proves: Whether to prove that they do not depend on each other, where that is possible.
        """
        ready = None
        try:
            ready = self.passes.run_whole(batch, size, proves=proves)
        except NotSeparableError as error:
            self._fall_back(str(error))
        return None if self._agree_to_fall_back() else ready

    def may_run_whole(self, batch: object, size: int) -> bool:
        """Returns whether the batches of all processes may be run whole, verified on them until that is decided."""
        if self.reason is not None:
            return False
        kinds = [kind for kind in (True, False) if kind not in self.verified and self.step.any((size > 1) is kind)]
        return all(self._verify_kind(batch, size, is_many=kind) for kind in kinds)

    def verify_first(
        self,
        batch: object,
        size: int,
        chosen: int,
        together: Mapping[str, Tensor],
        alone: Mapping[str, Tensor] | None,
        *,
        differs: bool,
    ) -> bool:
        """Returns whether a sample of a batch that was added has the marks that it has alone, and others do not.

        Args:
            batch: Of several samples.
            size: How many.
            chosen: The sample.
            together: The marks of its gradients in the batch, by weight.
            alone: Those that it has alone, where these are known without running it.
            differs: Whether another sample has others.
        """
        marks, expected = (
            self._stack(together),
            self._find_alone(batch, chosen) if alone is None else self._stack(alone),
        )
        if self.step.any(self.passes.computes_roughly and bool(self._find_apart(marks, expected).any())):
            self._verify_exactly(batch, size, chosen)
            return False
        agrees = self._agree(marks, expected)
        if self._agree_to_fall_back() or not self.step.all(agrees and differs):
            return False
        self.verified |= {True}
        return True

    def _verify_kind(self, batch: object, size: int, *, is_many: bool) -> bool:
        """Returns whether batches of one kind may be run whole; who has none stands in with a sample of its own."""
        chosen = find_different(batch, MOST_PAIRS_TRIED) if is_many else [0]
        pairs: list[tuple[int, ...]] = list(pairwise(chosen)) or [(0, min(1, size - 1)) if is_many else (0,)]
        found: bool | None = None
        for pair, _ in self.step.go_on(pairs):
            found = self._verify(batch, pair)
            if self._agree_to_fall_back():
                return False
            if self.step.any(found is True):
                self.verified.add(is_many)
                return True
        # When all samples are equal they may be mixed up without harm, this time.
        return self.step.all(found is not None and len(chosen) == 1)

    def _verify(self, batch: object, chosen: tuple[int, ...]) -> bool | None:
        """Compares the marks of one or two samples from a batch of them with those of each alone.

        Returns:
            Whether this decides for all batches: the marks agree, and differ between the samples, so that samples which
            are mixed up would show. None when they are not finite or do not agree.
        """
        # Both ways must draw the same labels, and the run itself those that it draws without this test.
        generator = self.passes.objective.generator
        state = generator.get_state()
        with self.passes.in_full_precision():  # the comparison too: what may be apart is as little as all bits allow
            together = self._find_together(batch, chosen)
            generator.set_state(state)
            if together is None:
                return None
            alone = [self._find_alone(batch, place) for place in chosen]
            generator.set_state(state)
            expected = torch.cat(alone, 1)
            if not self._agree(self._stack(together, len(chosen)), expected):
                return None
        return len(chosen) == 1 or not torch.equal(expected[:, 0], expected[:, 1])

    def _verify_exactly(self, batch: object, size: int, chosen: int) -> None:
        """Verifies a batch without the rounding of mixed precision, which through many layers can look like mixing."""
        with self.passes.in_full_precision():
            together = self._find_together(batch, tuple(range(size)))
            if together is None:
                return
            marks = self._stack(together, size)[:, chosen : chosen + 1]
            agrees = self._agree(marks, self._find_alone(batch, chosen))
        if not self._agree_to_fall_back() and self.step.all(agrees):
            self.verified |= {True}

    def _find_alone(self, batch: object, chosen: int) -> Tensor:
        ready = self.passes.run_single(pick_samples(batch, chosen))
        return self._stack(find_marks(ready, self.block_elements))

    def _find_together(self, batch: object, chosen: tuple[int, ...]) -> dict[str, Tensor] | None:
        ready = self.run_whole(pick_samples(batch, *chosen), len(chosen))
        return None if ready is None else find_marks(ready, self.block_elements)

    def _stack(self, marks: Mapping[str, Tensor], num_samples: int = 1) -> Tensor:
        """Returns marks as one tensor (weights, samples, 2), 0 for a weight that has no gradient."""
        nothing = torch.zeros(num_samples, 2)
        return torch.tensor([marks.get(name, nothing).tolist() for name in self.passes.weights], dtype=torch.float64)

    def _agree(self, got: Tensor, expected: Tensor) -> bool:
        """Returns whether marks found together are those of samples alone; falls back when they are finite and not."""
        if not bool(expected.isfinite().all()):
            return False
        apart = self._find_apart(got, expected)
        if not bool(apart.any()):
            return True
        name = list(self.passes.weights)[int(apart.any(1).int().argmax())]
        self._fall_back(
            f"the gradient of {name!r} in a batch is not that of each sample alone: the model mixes samples, "
            "or keeps them in another dimension than the first"
        )
        return False

    def _find_apart(self, got: Tensor, expected: Tensor) -> Tensor:
        # The last term lets gradients pass that are zero but for rounding.
        distance, tolerance = (got - expected).abs(), self._tolerance
        squares = torch.maximum(got, expected)[..., 0]
        most = torch.stack([squares, SUMS_TOLERANCE * squares.sqrt()], -1) * tolerance
        least = expected[..., 0].max() * 1e-12
        apart = distance > most + torch.stack([least, SUMS_TOLERANCE * least.sqrt()])
        return (apart | ~got.isfinite()).any(-1)

    @property
    def _tolerance(self) -> float:
        is_low = any(torch.finfo(weight.dtype).bits < 32 for weight in self.passes.weights.values())  # noqa: PLR2004 - bits
        return LOW_PRECISION_TOLERANCE if is_low or self.passes.computes_roughly else TOLERANCE

    def _fall_back(self, reason: str) -> None:
        self.reason = reason
        logger.warning("running one sample at a time, which is slower: %s", reason)

    def _agree_to_fall_back(self) -> bool:
        """Returns whether some process must run one sample at a time: then all do, and know why."""
        self.reason = self.step.find_first(self.reason)
        return self.reason is not None


def find_marks(
    ready: WholeBatch | SingleSample, block_elements: int | None, *, keep_graph: bool = False
) -> dict[str, Tensor]:
    """Returns for each weight the marks of each sample's gradient, shape (samples, 2); see `marks`.

    Args:
        ready: After the forward pass.
        block_elements: The most gradients to work on at once; None for what suits the device.
        keep_graph: Whether there will be another backward pass.
    """
    marks: dict[str, Tensor] = {}

    def receive(place: Place, uses: Sequence[Use]) -> None:
        found = compute_marks(uses, block_elements)
        marks[place.name] = marks[place.name] + found if place.name in marks else found

    ready.run_backward(receive, keep_graph=keep_graph)
    return marks

"""The stream: batches in, sums over samples out. Whole batches where calls can be taken apart, else sample by sample.

A test decides which of the two: the gradient norms of a sample, found in the first batch, must be those of this sample
alone; where that does not decide, two samples are compared with each alone. So a layer that mixes samples, or an input
whose samples are not its first dimension, is found on the model and the data at hand.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import (
    cut_batches,
    find_different,
    move_batch,
    pick_samples,
    take_samples,
)
from lottery_tickets._core.checks import check_any_samples
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.passes import Objective, Passes, SingleSample, WholeBatch
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.sums import Totals, ValueSums, add_uses, compute_square_norms
from lottery_tickets._core.gradients.tracking import NotSeparableError
from lottery_tickets._core.gradients.uses import Use
from lottery_tickets._core.gradients.values import Value
from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.weights import Weights

logger = logging.getLogger(__name__)

# How far the norms of one sample, computed in two ways, may lie apart: by rounding and the ReLUs that it flips. Samples
# that are mixed up differ by tens of percent.
TOLERANCE: Final = 1e-2  # also for float64 weights: many models compute norms and losses in float32
LOW_PRECISION_TOLERANCE: Final = 0.1
MOST_PAIRS_TRIED: Final = 4
ENOUGH_TO_GIVE_UP: Final = 100  # samples, before a long run ends for too many that are not finite


@final
class GradientStream:
    """Sums of values of per-sample gradients over a data set.

    Args:
        model: Run in evaluation mode.
        weights: Whose gradients count.
        values: What is summed.
        options: How.
        labels: "empirical", "sampled" or "exact".
        loss_fn: The caller's loss.
        seed: Of labels that are drawn, and of a loader that shuffles.
        progress: Whether to show a bar.

    Attributes:
        num_samples: Seen so far.
        reason: Why samples are run one at a time; None when whole batches are.
        autocast: The dtype of mixed precision; None without.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        values: Sequence[Value],
        options: ScoringOptions,
        *,
        labels: Labels = "empirical",
        loss_fn: LossFunction | None = None,
        seed: int = 42,
        progress: bool = False,
    ) -> None:
        self.options, self.model, self.seed, self.progress = options, model, seed, progress
        self.autocast = find_autocast(weights) if options.use_mixed_precision else None
        objective = Objective(loss_fn, labels, make_generator(seed, "labels"), self.autocast)
        self.passes = Passes(model, weights, objective)
        squared = [value.squared() for value in values if options.standard_errors]
        self.sums, self.squares = (
            {value.name: ValueSums(found, self._make_totals()) for value, found in zip(values, summed, strict=False)}
            for summed in (values, squared)
        )
        self.num_samples = self.num_batches = self.num_clipped = self.num_bad = 0
        self.dropped: Counter[Place] = Counter()
        self.reason: str | None = None
        self._num_finite = 0  # samples up to which the sums are known to be finite
        self._verified: set[bool] = set()  # whether batches of one sample, and of more, are known to come out right

    def run(
        self,
        dataloader: Iterable[Any],
        limit: int,
        stops: Sequence[int] = (),
        is_settled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Adds the samples of a loader, up to a limit; at each of `stops` the caller may end it.

        Raises:
            ValueError: When there is no sample, too many are not finite, or a sum overflows.
        """
        total = None if stops else limit  # with stops, where it ends is not known before
        bar = tqdm(total=total, unit="sample", disable=not self.progress)
        with ordered_by(dataloader, derive_seed(self.seed, "loader")), evaluating(self.model), bar:
            for batch, size in cut_batches(dataloader, limit, stops):
                self._add_batch(move_batch(batch, self.passes.device), size)
                bar.update(size)
                if self.num_samples >= ENOUGH_TO_GIVE_UP:
                    self._check_share_of_bad()
                if self.num_samples in stops and is_settled():
                    break
        check_any_samples(self.num_samples)
        self._check_share_of_bad()
        self._check_finite()

    def compute_means(self, value: Value) -> dict[str, Tensor]:
        """Returns the mean over samples of a value so far, by parameter name, beside the sums."""
        return self._divide({name: total.clone() for name, total in self.sums[value.name].totals.complete().items()})

    def take(self, value: Value) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """Returns the means of a value and their standard errors, if squares were summed, in place of the sums.

        So it can be called once for each value. The standard error of a mean is the samples' standard deviation over
        the root of their number.
        """
        means = self._divide(self.sums.pop(value.name).totals.complete())
        if value.name not in self.squares:
            return means, None
        errors = self._divide(self.squares.pop(value.name).totals.complete())
        for name, error in errors.items():
            # The mean of squares less the square of the mean, which rounding can take below 0.
            error.addcmul_(means[name], means[name], value=-1).clamp_(min=0).div_(max(1, self.num_samples - 1)).sqrt_()
        return means, errors

    def _add_batch(self, batch: object, size: int) -> None:
        self.num_batches += 1
        if self._add_first(batch, size):
            pass
        elif self._may_run_whole(batch, size):
            self._add_whole(batch, size)
        else:
            for start in range(size):
                self._add_single(take_samples(batch, start, start + 1) if size > 1 else batch)
        self.num_samples += size

    def _add_first(self, batch: object, size: int) -> bool:
        """Adds a batch to sums that are still empty, and verifies it meanwhile; returns False where they stay empty.

        One sample from its middle, which samples before and after it would reach if they were mixed, is run alone too.
        That is the quickest test, as the rest of the work is not done twice. Labels that are drawn would be others for
        that sample alone, and clipped gradients have other norms; so these are verified before. A gradient that is not
        finite is found in the sums, where it is cheaper to find than in what they are made of, and left to the others.
        """
        options, objective = self.options, self.passes.objective
        is_open = size > 1 and not self.num_samples and not self._verified and self.reason is None
        if not is_open or objective.labels == "sampled" or options.gradient_clip is not None:
            return False
        chosen, together = size // 2, dict[str, Tensor]()
        # On the smallest weight alone, because it costs time: samples whose gradients are equal could be mixed unseen.
        smallest, others = min(self.passes.weights, key=lambda name: self.passes.weights[name].numel()), list[Tensor]()

        def receive(place: Place, uses: Sequence[Use]) -> None:
            found = self._receive(place, uses, chosen)
            if found is not None:
                together[place.name] = together[place.name] + found if place.name in together else found
            if place.name == smallest:
                others.append(compute_square_norms([use.take(slice(1)) for use in uses], options.chunk_size))

        try:
            ready = self.passes.run_whole(batch, size)
        except NotSeparableError as error:
            self._fall_back(str(error))
            return False
        ready.tracker.drops_bad = False
        ready.run_backward(receive)
        differs = bool(others) and not torch.equal(reduce(torch.add, others), together[smallest])
        is_finite = self._find_overflow() is None
        if is_finite and self._verify_first(batch, size, chosen, self._stack_norms(together), differs):
            self._num_finite = size
            return True
        for sums in (*self.sums.values(), *self.squares.values()):
            for total in sums.totals.values():
                total.zero_()
        return False

    def _may_run_whole(self, batch: object, size: int) -> bool:
        """Returns whether a batch's gradients can be told apart, verified on its own samples until that is decided."""
        if self.reason is not None:
            return False
        if (size > 1) in self._verified:
            return True
        chosen = find_different(batch, MOST_PAIRS_TRIED)
        if size > 1 and len(chosen) == 1:  # all samples are equal, so they may be mixed up without harm, this time
            return self._verify(batch, (0, 1)) is not None and self.reason is None
        pairs = list(pairwise(chosen)) if size > 1 else [(0,)]
        for pair in pairs:
            if self._verify(batch, pair) or self.reason is not None:
                break
        return (size > 1) in self._verified

    def _check_share_of_bad(self) -> None:
        if self.num_bad > self.options.nonfinite_limit * self.num_samples:
            raise ValueError(
                f"at most {self.options.nonfinite_limit:.2%} of the samples may have gradients that are not finite, "
                f"but {self.num_bad} of {self.num_samples} have; look for NaN in the data, or raise nonfinite_limit="
            )

    def _add_whole(self, batch: object, size: int) -> None:
        try:
            ready = self.passes.run_whole(batch, size)
        except NotSeparableError as error:  # in the forward pass, so nothing has been added
            self._fall_back(str(error))
            for start in range(size):
                self._add_single(take_samples(batch, start, start + 1))
            return
        ready.run_backward(self._receive, self._find_scale(ready))
        self.dropped.update(ready.tracker.dropped)
        self.num_bad += int(ready.tracker.bad_samples.sum())

    def _add_single(self, sample: object) -> None:
        ready = self.passes.run_single(sample)
        bad: list[Place] = []

        def receive(place: Place, uses: Sequence[Use]) -> None:
            if all(bool(use.gradients.isfinite().all()) for use in uses):
                self._receive(place, uses)
            else:
                bad.append(place)

        ready.run_backward(receive, self._find_scale(ready))
        self.dropped.update(set(bad))
        self.num_bad += bool(bad)

    def _find_scale(self, ready: WholeBatch | SingleSample) -> Tensor | None:
        """Returns the factors that clip each sample's gradient, after a backward pass that only takes norms."""
        limit = self.options.gradient_clip
        if limit is None:
            return None
        squares = _find_square_norms(ready, self.options.chunk_size, keep_graph=True)
        norms = torch.stack(list(squares.values())).sum(0).sqrt()
        clipped = norms > limit
        self.num_clipped += int(clipped.sum())
        return torch.where(clipped, limit / norms, torch.ones_like(norms))

    def _receive(self, place: Place, uses: Sequence[Use], watched: int | None = None) -> Tensor | None:
        sums = [*self.sums.values(), *self.squares.values()]
        return add_uses(sums, place, uses, self.passes.weights[place.name], self.options.chunk_size, watched=watched)

    def _verify(self, batch: object, chosen: tuple[int, ...]) -> bool | None:
        """Compares the norms of one or two samples from a batch of them with those of each alone.

        Returns:
            Whether this decides for all batches: the norms agree, and differ between the samples, so that samples which
            are mixed up would show. None when they are not finite or do not agree.
        """
        # Both ways must draw the same labels, and the run itself those that it draws without this test.
        generator = self.passes.objective.generator
        state = generator.get_state()
        with self.passes.in_full_precision():  # the comparison too: what may be apart is as little as all bits allow
            together = self._find_norms_together(batch, chosen)
            generator.set_state(state)
            alone = [self._find_norms_alone(batch, place) for place in chosen]
            generator.set_state(state)
            if together is None:
                return None
            expected = torch.cat(alone, 1)
            if not self._agree(self._stack_norms(together, len(chosen)), expected):
                return None
        decided = len(chosen) == 1 or not torch.equal(expected[:, 0], expected[:, 1])
        if decided:
            self._verified.add(len(chosen) > 1)
        return decided

    def _stack_norms(self, norms: Mapping[str, Tensor], num_samples: int = 1) -> Tensor:
        """Returns norms as one tensor (weights, samples), 0 for a weight that has no gradient."""
        nothing = torch.zeros(num_samples)
        return torch.tensor([norms.get(name, nothing).tolist() for name in self.passes.weights], dtype=torch.float64)

    def _verify_first(self, batch: object, size: int, chosen: int, together: Tensor, differs: bool) -> bool:  # noqa: FBT001 - of one sample
        """Returns whether a sample of a batch that was added has the norms that it has alone, and others do not."""
        alone = self._find_norms_alone(batch, chosen)
        if self.passes.computes_roughly and bool(self._find_apart(together, alone).any()):
            self._verify_exactly(batch, size, chosen)
            return False
        if not (self._agree(together, alone) and differs):
            return False
        self._verified.add(size > 1)
        return True

    def _verify_exactly(self, batch: object, size: int, chosen: int) -> None:
        """Verifies a batch without the rounding of mixed precision, which through many layers can look like mixing."""
        with self.passes.in_full_precision():
            together = self._find_norms_together(batch, tuple(range(size)))
            if together is not None and self._agree(
                self._stack_norms(together, size)[:, chosen : chosen + 1], self._find_norms_alone(batch, chosen)
            ):
                self._verified.add(size > 1)

    def _find_norms_alone(self, batch: object, chosen: int) -> Tensor:
        ready = self.passes.run_single(pick_samples(batch, chosen))
        return self._stack_norms(_find_square_norms(ready, self.options.chunk_size))

    def _agree(self, got: Tensor, expected: Tensor) -> bool:
        """Returns whether norms found together are those of samples alone; falls back when they are finite and not."""
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
        apart = (got - expected).abs() > self._tolerance * torch.maximum(got, expected) + 1e-12 * expected.max()
        return apart | ~got.isfinite()

    def _find_norms_together(self, batch: object, chosen: tuple[int, ...]) -> dict[str, Tensor] | None:
        try:
            ready = self.passes.run_whole(pick_samples(batch, *chosen), len(chosen))
        except NotSeparableError as error:
            self._fall_back(str(error))
            return None
        return _find_square_norms(ready, self.options.chunk_size)

    @property
    def _tolerance(self) -> float:
        is_low = any(torch.finfo(weight.dtype).bits < 32 for weight in self.passes.weights.values())  # noqa: PLR2004 - bits
        return LOW_PRECISION_TOLERANCE if is_low or self.passes.computes_roughly else TOLERANCE

    def _fall_back(self, reason: str) -> None:
        self.reason = reason
        logger.warning("running one sample at a time, which is slower: %s", reason)

    def _make_totals(self) -> Totals:
        return Totals(self.passes.weights, torch.device("cpu") if self.options.offload else None)

    def _divide(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the sums as means, in place."""
        for total in totals.values():
            total.div_(self.num_samples)
        for place, num_dropped in self.dropped.items():
            # These samples have no gradient here: the mean is over the others.
            place.of(totals[place.name]).mul_(self.num_samples / max(1, self.num_samples - num_dropped))
        return {name: total.contiguous() for name, total in totals.items()}

    def _check_finite(self) -> None:
        found = self._find_overflow() if self._num_finite < self.num_samples else None
        if found is not None:
            raise ValueError(
                f"the sum of {found[0].name} must be finite, but overflows for {found[1]!r}; "
                "scale the loss down or clip with gradient_clip="
            )

    def _find_overflow(self) -> tuple[Value, str] | None:
        """Returns which sum is not finite: its value, and the name of the weight."""
        for sums in (*self.sums.values(), *self.squares.values()):
            for name, total in sums.totals.items():
                # The sum is cheap, but can overflow where every number is finite.
                if not math.isfinite(total.sum().item()) and not bool(total.isfinite().all()):
                    return sums.value, name
        return None


def _find_square_norms(
    ready: WholeBatch | SingleSample, block_elements: int | None, *, keep_graph: bool = False
) -> dict[str, Tensor]:
    """Returns for each weight the square of the norm of each sample's gradient, shape (samples,)."""
    norms: dict[str, Tensor] = {}

    def receive(place: Place, uses: Sequence[Use]) -> None:
        found = compute_square_norms(uses, block_elements)
        norms[place.name] = norms[place.name] + found if place.name in norms else found

    ready.run_backward(receive, keep_graph=keep_graph)
    return norms


def find_autocast(weights: Weights) -> torch.dtype | None:
    """Returns bfloat16 where float32 weights lie on a GPU that computes in it, else None."""
    on_gpu = all(weight.device.type == "cuda" and weight.dtype == torch.float32 for weight in weights.values())
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else None

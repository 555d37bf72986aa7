"""The stream: batches in, sums over samples out. Whole batches where calls can be taken apart, else sample by sample.

Of a model that several processes share each sees its own batches, and all run in step: as long as one has a batch, all
run one, and those without let it count for nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import cut_batches, move_batch, take_samples
from lottery_tickets._core.checks import check_any_samples
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.passes import Objective, Passes, Receive, SingleSample, WholeBatch
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.separation import Separation, find_marks
from lottery_tickets._core.gradients.shares import Shares
from lottery_tickets._core.gradients.sums import Totals, ValueSums, compute_marks
from lottery_tickets._core.gradients.uses import Use
from lottery_tickets._core.gradients.values import Value
from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.in_step import InStep
from lottery_tickets._core.sharding.together import ALONE
from lottery_tickets._core.weights import Weights

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
        step: The processes that share the model; this one alone by default.

    Attributes:
        num_samples: Seen so far.
        separation: Whether whole batches are run.
        autocast: The dtype of mixed precision; None without, and of weights that are shared out, whose precision is
            that of FSDP's own policy.
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
        step: InStep | None = None,
    ) -> None:
        self.options, self.model, self.seed, self.progress = options, model, seed, progress
        self.step = step or InStep(ALONE)
        is_whole = weights.shards is None
        self.autocast = find_autocast(weights) if options.use_mixed_precision and is_whole else None
        objective = Objective(loss_fn, labels, make_generator(seed, "labels"), self.autocast)
        self.passes = Passes(model, weights, objective)
        here = self.passes.weights if weights.shards is None else {n: see_local(t) for n, t in weights.tensors.items()}
        squared = [value.squared() for value in values if options.standard_errors]
        self.sums, self.squares = (
            {
                value.name: ValueSums(found, self._make_totals(here))
                for value, found in zip(values, summed, strict=False)
            }
            for summed in (values, squared)
        )
        self.shares = Shares(weights, self.step)
        self.separation = Separation(self.passes, options.chunk_size, self.step)
        self.num_samples = self.num_batches = self.num_clipped = self.num_bad = 0
        self.dropped: Counter[Place] = Counter()
        self._num_finite = 0  # samples up to which the sums are known to be finite

    @property
    def reason(self) -> str | None:
        """Why samples are run one at a time; None when whole batches are."""
        return self.separation.reason

    def run(
        self,
        dataloader: Iterable[Any],
        limit: int,
        stops: Sequence[int] = (),
        is_settled: Callable[[], bool] = lambda: False,
        join: Callable[[], object] = lambda: None,
    ) -> None:
        """Adds the samples of a loader, up to a limit; at each of `stops` the caller may end it.

        Args:
            dataloader: Batches.
            limit: The most samples of this process.
            stops: Numbers of samples of this process; where all have come to the same of them, it may be ended.
            is_settled: Whether to end there.
            join: Puts what other processes have seen into this stream, at the end.

        Raises:
            ValueError: When there is no sample, too many are not finite, or a sum overflows.
        """
        total = None if stops else limit  # with stops, where it ends is not known before
        bar = tqdm(total=total, unit="sample", disable=not self.progress)
        with ordered_by(dataloader, derive_seed(self.seed, "loader")), evaluating(self.model), bar:
            batches, last = cut_batches(dataloader, limit, stops), list[tuple[Any, int]]()
            for stop in (*stops, limit):
                for item, is_own in self.step.go_on(self._read_until(batches, stop), last):
                    last = [item]
                    self.step.check_alike((item, is_own))
                    self._add_batch(move_batch(item[0], self.passes.device), item[1], counts=is_own)
                    bar.update(item[1] if is_own else 0)
                    if self.num_samples >= ENOUGH_TO_GIVE_UP:
                        self._check_share_of_bad()
                if self.step.all(stop < limit and self.num_samples == stop) and is_settled():
                    break
        join()
        check_any_samples(self.num_samples)
        self._check_share_of_bad()
        self._check_finite()

    def compute_means(self, value: Value) -> dict[str, Tensor]:
        """Returns the mean over the samples of all processes of a value so far, by parameter name, beside the sums."""
        totals = {name: total.clone() for name, total in self.sums[value.name].totals.complete().items()}
        if not self.shares.is_shared:
            self.step.add_up_("the sums so far", totals.values())
        return self._divide(totals, *self.count_all())

    def count_all(self) -> tuple[int, Counter[Place]]:
        """Returns how many samples all processes have seen so far, and at which places how many were dropped."""
        told = self.step.gather("the counts so far", (self.num_samples, self.dropped))
        return sum(number for number, _ in told), sum((dropped for _, dropped in told), Counter[Place]())

    def take(self, value: Value) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """Returns the means of a value and their standard errors, if squares were summed, in place of the sums.

        So it can be called once for each value. The standard error of a mean is the samples' standard deviation over
        the root of their number.
        """
        means = self._divide(self.sums.pop(value.name).totals.complete(), self.num_samples, self.dropped)
        if value.name not in self.squares:
            return means, None
        errors = self._divide(self.squares.pop(value.name).totals.complete(), self.num_samples, self.dropped)
        for name, error in errors.items():
            # The mean of squares less the square of the mean, which rounding can take below 0.
            error.addcmul_(means[name], means[name], value=-1).clamp_(min=0).div_(max(1, self.num_samples - 1)).sqrt_()
        return means, errors

    def _read_until(self, batches: Iterator[tuple[Any, int]], stop: int) -> Iterator[tuple[Any, int]]:
        """Yields batches until so many samples have been added."""
        while self.num_samples < stop:
            item = next(batches, None)
            if item is None:
                return
            yield item

    def _add_batch(self, batch: object, size: int, *, counts: bool) -> None:
        self.shares.takes_part = counts
        if self._add_first(batch, size):
            pass
        elif self.separation.may_run_whole(batch, size):
            self._add_whole(batch, size)
        else:
            self._add_samples(batch, size)
        self.num_batches += counts
        self.num_samples += size if counts else 0

    def _add_first(self, batch: object, size: int) -> bool:
        """Adds a batch to sums that are still empty, and verifies it meanwhile; returns False where they stay empty.

        One sample from its middle, which samples before and after it would reach if they were mixed, is run alone too.
        That is the quickest test, as the rest of the work is not done twice. Labels that are drawn would be others for
        that sample alone, and clipped gradients have other norms; so these are verified before. A gradient that is not
        finite is found in the sums, where it is cheaper to find than in what they are made of, and left to the others.
        """
        options, objective = self.options, self.passes.objective
        is_open = not self.num_samples and not self.separation.verified and self.reason is None
        is_open = is_open and objective.labels != "sampled" and options.gradient_clip is None
        if not is_open or not self.step.all(size > 1):
            return False
        chosen, together = size // 2, dict[str, Tensor]()
        # On the smallest weight alone, because it costs time: samples whose gradients are equal could be mixed unseen.
        smallest, others = min(self.passes.weights, key=lambda name: self.passes.weights[name].numel()), list[Tensor]()

        def receive(place: Place, uses: Sequence[Use]) -> None:
            found = self._receive(place, uses, chosen)
            if found is not None:
                together[place.name] = together[place.name] + found if place.name in together else found
            if place.name == smallest:
                others.append(compute_marks([use.take(slice(1)) for use in uses], options.chunk_size))

        ready = self.separation.run_whole(batch, size, proves=True)
        if ready is None:
            return False
        ready.tracker.drops_bad = False
        is_proved = self.step.all(ready.tracker.is_proved)
        ready.tracker.watched = chosen if is_proved else None
        self._run_backward(ready, receive)
        alone = ready.tracker.alone if is_proved else None
        differs = is_proved or (bool(others) and not torch.equal(reduce(torch.add, others), together[smallest]))
        is_finite = self.step.all(self._find_overflow() is None)
        if is_finite and self.separation.verify_first(batch, size, chosen, together, alone, differs=differs):
            self._num_finite = size
            return True
        for sums in self._list_sums():
            for total in sums.totals.values():
                total.zero_()
        return False

    def _check_share_of_bad(self) -> None:
        if self.num_bad > self.options.nonfinite_limit * self.num_samples:
            raise ValueError(
                f"at most {self.options.nonfinite_limit:.2%} of the samples may have gradients that are not finite, "
                f"but {self.num_bad} of {self.num_samples} have; look for NaN in the data, or raise nonfinite_limit="
            )

    def _add_whole(self, batch: object, size: int) -> None:
        ready = self.separation.run_whole(batch, size)
        if ready is None:  # known after the forward pass, so nothing has been added
            self._add_samples(batch, size)
            return
        self._run_backward(ready, self._receive, self._find_scale(ready))
        if self.shares.takes_part:
            self.dropped.update(ready.tracker.dropped)
            self.num_bad += int(ready.tracker.bad_samples.sum())

    def _add_samples(self, batch: object, size: int) -> None:
        counts = self.shares.takes_part
        samples = (take_samples(batch, start, start + 1) if size > 1 else batch for start in range(size))
        for sample, is_own in self.step.go_on(samples):
            self.shares.takes_part = counts and is_own
            self._add_single(sample)

    def _add_single(self, sample: object) -> None:
        ready = self.passes.run_single(sample)
        bad: set[Place] = set()

        def receive(place: Place, uses: Sequence[Use]) -> None:
            is_finite = all(bool(use.gradients.isfinite().all()) for use in uses)
            if not is_finite:
                bad.add(place)
            self._receive(place, uses if is_finite else ())

        self._run_backward(ready, receive, self._find_scale(ready))
        if self.shares.takes_part:
            self.dropped.update(bad)
            self.num_bad += bool(bad)

    def _run_backward(self, ready: WholeBatch | SingleSample, receive: Receive, scale: Tensor | None = None) -> None:
        self.shares.begin(ready.num_places)
        ready.run_backward(receive, scale)
        self.shares.finish(self._list_sums(), self.passes.weights)

    def _find_scale(self, ready: WholeBatch | SingleSample) -> Tensor | None:
        """Returns the factors that clip each sample's gradient, after a backward pass that only takes norms."""
        limit = self.options.gradient_clip
        if limit is None:
            return None
        marks = find_marks(ready, self.options.chunk_size, keep_graph=True)
        norms = torch.stack([squares for squares, _ in (mark.unbind(1) for mark in marks.values())]).sum(0).sqrt()
        clipped = norms > limit
        self.num_clipped += int(clipped.sum()) if self.shares.takes_part else 0
        return torch.where(clipped, limit / norms, torch.ones_like(norms))

    def _receive(self, place: Place, uses: Sequence[Use], watched: int | None = None) -> Tensor | None:
        weight, size = self.passes.weights[place.name], self.options.chunk_size
        return self.shares.add(self._list_sums(), place, uses, weight, size, watched=watched)

    def _list_sums(self) -> list[ValueSums]:
        return [*self.sums.values(), *self.squares.values()]

    def _make_totals(self, weights: Mapping[str, Tensor]) -> Totals:
        return Totals(weights, torch.device("cpu") if self.options.offload else None)

    def _divide(self, totals: dict[str, Tensor], num_samples: int, dropped: Mapping[Place, int]) -> dict[str, Tensor]:
        """Returns the sums over samples as means, in place."""
        for total in totals.values():
            total.div_(num_samples)
        for place, num_dropped in dropped.items():
            # These samples have no gradient here: the mean is over the others.
            factor = num_samples / max(1, num_samples - num_dropped)
            self.shares.scale_(totals[place.name], place, factor)
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
        for sums in self._list_sums():
            for name, total in sums.totals.items():
                # The sum is cheap, but can overflow where every number is finite.
                if not math.isfinite(total.sum().item()) and not bool(total.isfinite().all()):
                    return sums.value, name
        return None


def find_autocast(weights: Weights) -> torch.dtype | None:
    """Returns bfloat16 where float32 weights lie on a GPU that computes in it, else None."""
    on_gpu = all(weight.device.type == "cuda" and weight.dtype == torch.float32 for weight in weights.values())
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else None

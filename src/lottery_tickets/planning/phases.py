"""The moments of each analysis, with what is held at each: where the model is, and on the CPU."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, final

import torch

from lottery_tickets._core.gradients.tracking import NotSeparableError
from lottery_tickets._core.memory.sizes import (
    BITS,
    BYTES_FLOAT32,
    BYTES_OF_RANK,
    FULL_BITS,
    Analysis,
    ModelSizes,
    Parts,
    find_certain,
)
from lottery_tickets._core.memory.stand_in import StandIn
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.rates.work import MEMORY, MOVING, SELECTION, Work
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets.early_bird.exchanges import choose_num_samples
from lottery_tickets.early_bird.learning import MOST_STEPPED
from lottery_tickets.early_bird.probe import LARGEST, NUM_WITNESSES
from lottery_tickets.landscape.directions import KEPT_BYTES
from lottery_tickets.planning.passes import HELD, SUMS, Pass, run_backward, run_forward, run_scoring, run_training

NUM_DIRECTIONS: Final = 2
PARTS_PUT_BACK: Final = 4
ACCESSES_OF_ADAM: Final = 7  # to weight, gradient and two numbers, of which all but the gradient are written
ACCESSES_TO_MOVE: Final = 10  # to a weight, two steps and their sum


@final
@dataclass(frozen=True)
class Phase:
    """A moment of an analysis.

    Attributes:
        name: What is done.
        device: Bytes by part where the model is, beside weights and buffers.
        host: Bytes by part on the CPU.
        work: What is computed, of the one phase that an analysis repeats: a step, a batch, a point.
        num_samples: That this work is for.
    """

    name: str
    device: Parts
    host: Parts
    work: Work | None = None
    num_samples: int = 0


@dataclass(frozen=True)
class Asked:
    """What a plan is for.

    Attributes:
        example: A batch of the kind that the model takes, of one sample or more.
        batch_size: Samples.
        training: How early-bird trains.
        loss_fn: As in `compute_loss`.
        chunk_size: Of scores.
        offload: Whether scores are summed on the CPU.
    """

    example: Any
    batch_size: int
    training: TrainerSettings
    loss_fn: LossFunction | None = None
    chunk_size: int | None = None
    offload: bool = False


@final
class Foretold:
    """What each analysis of a model holds, by phases; passes that several analyses have in common are run once.

    Args:
        stand_in: Of the model.
        sizes: Of the model.
        asked: For what.
    """

    def __init__(self, stand_in: StandIn, sizes: ModelSizes, asked: Asked) -> None:
        self._stand_in, self._sizes, self._asked = stand_in, sizes, asked
        self._names = list(sizes.prunable)

    def list_phases(self, analysis: Analysis) -> list[Phase]:
        """Returns the phases of an analysis."""
        listed: Mapping[Analysis, Callable[[], Iterator[Phase]]] = {
            "early_bird_sgd": lambda: self._early_bird(use_sgd=True),
            "early_bird_adamw": lambda: self._early_bird(use_sgd=False),
            "fisher": self._fisher,
            "robustness": self._robustness,
            "quality": self._quality,
            "landscape": self._landscape,
            "imp": self._imp,
        }
        return list(listed[analysis]())

    def _early_bird(self, *, use_sgd: bool) -> Iterator[Phase]:
        sizes, training = self._sizes, self._asked.training
        if not use_sgd:
            training = replace(training, use_sgd=False, momentum=0.0)
        elif not training.use_sgd:
            training = replace(training, use_sgd=True)
        certain = find_certain(
            "early_bird_sgd" if use_sgd else "early_bird_adamw",
            sizes,
            momentum=bool(training.momentum),
            adam_bytes=None if training.adamw_bits == FULL_BITS else training.adamw_bits // BITS,
        )
        yield from (replace(phase, host=certain.host | phase.host) for phase in self._probe_phases)
        size = min(self._size, training.max_batch_size or self._size)
        step = run_training(self._stand_in, self._make(size), training, self._asked.loss_fn)
        optimizer = {name: num for name, num in certain.device.items() if name == "optimizer"}
        work = step.work if use_sgd else step.work + self._stepping
        yield Phase("a training step", step.parts | optimizer, certain.host, work, size)
        at_check = {"ranks": 3 * BYTES_OF_RANK * sizes.num_prunable, "masks": 3 * -(-sizes.num_prunable // BITS)}
        yield Phase("a check", optimizer, certain.host | at_check)
        put_back = {HELD: sum(sizes.prunable_bytes.values()) // PARTS_PUT_BACK + sizes.largest_prunable_bytes}
        yield Phase("what a part moved is put back", optimizer | put_back | self._forward.parts, certain.host)

    @cached_property
    def _probe_phases(self) -> list[Phase]:
        loss_fn, stand_in = self._asked.loss_fn, self._stand_in
        size = self._probe_size
        witnesses = run_forward(stand_in, self._make(2 * min(NUM_WITNESSES, size)), [], loss_fn, tells_samples=True)
        gradient = run_backward(stand_in, self._make(size), self._names, loss_fn)
        totals = list(accumulate(self._sizes.prunable.values()))
        num_stepped = max(1, sum(total <= MOST_STEPPED for total in totals))
        stepped = run_backward(stand_in, self._make(size), self._names[:num_stepped], loss_fn, summed=True)
        held = {HELD: 2 * stepped.parts.get(HELD, 0)}
        return [
            Phase("the probe, both ways", witnesses.parts, {}),
            Phase("the gradient on the probe", gradient.parts, {}),
            Phase("a small step on the probe", stepped.parts, {}),
            Phase("the probe after that step", held | self._forward.parts, {}),
        ]

    @cached_property
    def _forward(self) -> Pass:
        return run_forward(self._stand_in, self._make(self._probe_size), [], self._asked.loss_fn, tells_samples=True)

    @cached_property
    def _probe_size(self) -> int:
        """The samples that a probe runs at a time: a batch, or several where its tensors are small."""
        limit = self._asked.training.max_batch_size
        size = max(2, min(self._size, limit or self._size) // 2 * 2)
        if limit is not None:
            return size
        first = run_forward(self._stand_in, self._make(size), [], self._asked.loss_fn)
        half = 2 * -(-choose_num_samples(self._size) // 4)
        return max(size, min(half, LARGEST * size // first.largest_elements))

    def _fisher(self) -> Iterator[Phase]:
        asked = self._asked
        try:
            given = (self._stand_in, self._make(self._size), self._names, asked.loss_fn, asked.chunk_size)
            found = run_scoring(*given, autocast=self._autocast)
            device, name, size = dict(found.parts), "a batch, sample by sample within it", self._size
        except NotSeparableError:
            found, name = (
                run_backward(self._stand_in, self._make(1), self._names, asked.loss_fn),
                "one sample at a time",
            )
            device = {SUMS: BYTES_FLOAT32 * self._sizes.num_prunable, **found.parts}
            size = 1
        host = {SUMS: device.pop(SUMS)} if asked.offload else {}
        yield Phase(name, device, host, found.work, size)

    @property
    def _autocast(self) -> torch.dtype | None:
        """The dtype of scores' mixed precision: that of GPUs for float32 weights, unless the one at hand has it not."""
        weights = self._stand_in.parameters
        is_rounded = self._stand_in.on_gpu and all(weights[name].dtype == torch.float32 for name in self._names)
        has_it = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_rounded and has_it else None

    @cached_property
    def _masked(self) -> Pass:
        return run_forward(self._stand_in, self._make(self._size), self._names, self._asked.loss_fn, bytes_beside=1)

    def _robustness(self) -> Iterator[Phase]:
        mask = find_certain("robustness", self._sizes).host
        work = self._masked.work + Work.of(SELECTION, [self._sizes.num_prunable])
        yield Phase("the model under a mask", self._masked.parts, mask, work, self._size)
        order = {"random order": 2 * BYTES_FLOAT32 * max(self._sizes.prunable.values(), default=0)}
        yield Phase("a mask is drawn", {}, mask | order)

    def _quality(self) -> Iterator[Phase]:
        host = find_certain("quality", self._sizes).host
        yield Phase("the model under a mask", self._masked.parts, host, self._masked.work, self._size)

    def _landscape(self) -> Iterator[Phase]:
        moved = {
            name: weight
            for name, weight in self._stand_in.parameters.items()
            if weight.ndim > 1 and weight.is_floating_point()
        }
        found = run_forward(self._stand_in, self._make(self._size), moved, self._asked.loss_fn)
        num_bytes = sum(weight.nbytes for weight in moved.values())
        num_kept = sum(weight.numel() for weight in moved.values()) if num_bytes <= KEPT_BYTES else 0
        kept = {"directions": NUM_DIRECTIONS * BYTES_FLOAT32 * num_kept, HELD: num_bytes} if num_kept else {}
        if num_kept:  # directions are drawn once, and added at each point
            moving = Work.of(MEMORY, (ACCESSES_TO_MOVE * weight.nbytes for weight in moved.values()))
        else:
            moving = Work.of(MOVING, (weight.numel() for weight in moved.values()))
        yield Phase("a point", found.parts | kept, {}, found.work + moving, self._size)

    def _imp(self) -> Iterator[Phase]:
        certain = find_certain("imp", self._sizes)
        training = TrainerSettings(use_sgd=False, activation_checkpointing=False)
        step = run_training(self._stand_in, self._make(self._size), training, self._asked.loss_fn)
        device = step.parts | {"optimizer": certain.device["optimizer"]}
        yield Phase("a training step", device, certain.host, step.work + self._stepping, self._size)
        copied = {"saved weights": certain.host["starting weights"]}
        yield Phase("a training is kept", {}, certain.host | copied)

    @cached_property
    def _stepping(self) -> Work:
        """A step of AdamW, which is one call a weight."""
        trained = [weight for weight in self._stand_in.parameters.values() if weight.requires_grad]
        return Work.of(MEMORY, (ACCESSES_OF_ADAM * weight.nbytes for weight in trained))

    @property
    def _size(self) -> int:
        return self._asked.batch_size

    def _make(self, num_samples: int) -> Any:  # noqa: ANN401 - a batch of the stand-in
        return self._stand_in.make_batch(self._asked.example, num_samples)

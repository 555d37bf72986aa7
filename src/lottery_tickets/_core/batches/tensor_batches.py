"""Batches cut from tensors in memory: one gather a batch, any step reachable at once."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lottery_tickets._core.determinism import make_generator


@dataclass(frozen=True)
class TensorBatches:
    """An endless, shuffled sequence of batches that is a function of its seed.

    Attributes:
        inputs: Samples along the first dimension.
        targets: One target a sample.
        batch_size: Samples a batch; the last of an epoch may be smaller, none is dropped.
        seed: Decides the order of every epoch.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int
    seed: int

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of step `step`, `step + 1` and so on, without going through the earlier ones."""
        num_samples = len(self.inputs)
        steps_an_epoch = -(-num_samples // self.batch_size)
        first_epoch, skipped = divmod(step, steps_an_epoch)
        for epoch in itertools.count(first_epoch):
            order = torch.randperm(num_samples, generator=make_generator(self.seed, "epoch", epoch))
            for chosen in order.split(self.batch_size)[skipped:]:
                yield self.inputs[chosen], self.targets[chosen]
            skipped = 0

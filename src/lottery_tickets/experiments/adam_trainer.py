"""The default trainer of iterative magnitude pruning, for callers without one of their own."""

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import nn

from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.objective import LossFunction, compute_loss


@final
class AdamTrainer:
    """The trainer that `train=True` stands for: Adam at a constant learning rate, one pass over the data an epoch."""

    def __init__(self, learning_rate: float, loss_fn: LossFunction | None = None) -> None:
        self.learning_rate, self.loss_fn = learning_rate, loss_fn

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        """Trains in place."""
        optimizer = torch.optim.Adam(model.parameters(), self.learning_rate)
        device = next(model.parameters()).device
        model.train()
        for _ in range(epochs):
            num_batches = 0
            for num_batches, batch in enumerate(dataloader, start=1):  # noqa: B007 - counts the batches
                compute_loss(model, move_batch(batch, device), self.loss_fn).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if not num_batches:
                raise ValueError("the dataloader must hold at least one batch each epoch, but gave none; is it empty?")

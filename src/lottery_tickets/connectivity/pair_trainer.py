"""Pairs of trainings that share a beginning and differ, after it, in the order of the data alone."""

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, final

from torch import Tensor, nn

from lottery_tickets._core.batches.order import depends_on_seed, ordered_by
from lottery_tickets._core.checks import check_count, check_restartable
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets._core.training.trainer_function import TrainerFunction, train_epochs
from lottery_tickets.experiments.pairs import COPIES
from lottery_tickets.masks.holding import find_masked_parameters, hold_mask
from lottery_tickets.masks.mask import Mask, as_mask


@final
class PairTrainer:
    """Trains pairs of copies of a model that differ in the order of the data."""

    def __init__(
        self,
        model: nn.Module,
        trainer_fn: TrainerFunction,
        dataloader: Iterable[Any],
        *,
        num_epochs: int,
        rewind_epoch: object,
        mask: object,
    ) -> None:
        if not callable(trainer_fn):
            raise TypeError(f"trainer_fn must be a function of model, dataloader and epochs, got {trainer_fn!r}")
        check_restartable(dataloader)
        self.num_epochs = check_count("num_epochs", num_epochs)
        if isinstance(rewind_epoch, bool) or not isinstance(rewind_epoch, int) or not 0 <= rewind_epoch < num_epochs:
            raise ValueError(f"rewind_epoch must be from 0 to num_epochs - 1, {num_epochs - 1}, got {rewind_epoch!r}")
        self.model, self.trainer_fn, self.dataloader, self.rewind_epoch = model, trainer_fn, dataloader, rewind_epoch
        self.mask: Mask | None = None
        if mask is not None:
            self.mask = as_mask(mask)
            find_masked_parameters(model, self.mask)

    def check_order(self, seeds: Mapping[str, int]) -> None:
        """Warns before hours are spent on copies that see the same batches; a trainer may have a loader of its own."""
        if not depends_on_seed(self.dataloader, seeds["first"], seeds["second"]):
            warnings.warn(
                "the training data must come in an order that the seed decides, but two seeds give the same batches; "
                "pass a loader with shuffle=True, unless the trainer shuffles by itself",
                stacklevel=3,
            )

    def train(self, seeds: Mapping[str, int]) -> tuple[str, list[dict[str, Tensor]]]:
        """Returns the hash of what both copies start from, and where they end."""
        shared = copy.deepcopy(self.model)
        if self.rewind_epoch:
            self._train(shared, seeds["shared"], self.rewind_epoch)
        if self.mask is not None:
            hold_mask(shared, self.mask)
        start = hash_state(copy_state(shared))
        ends = []
        for name in COPIES:
            # The last copy is trained in place, which spares the memory of one more.
            trained = shared if name == COPIES[-1] else copy.deepcopy(shared)
            self._train(trained, seeds[name], self.num_epochs - self.rewind_epoch)
            ends.append(copy_state(trained))
        _check_ends(start, *map(hash_state, ends))
        return start, ends

    def _train(self, model: nn.Module, seed: int, num_epochs: int) -> None:
        with ordered_by(self.dataloader, seed):
            train_epochs(self.trainer_fn, model, self.dataloader, num_epochs)
        model.zero_grad(set_to_none=True)


def _check_ends(start: str, first: str, second: str) -> None:
    if start in (first, second):
        raise ValueError(
            "trainer_fn must train the model it is given, or return another, but a copy ended bit for bit as it began; "
            "does it train a model of its own?"
        )
    if first == second:
        raise ValueError(
            "the two copies must see the data in different orders, but ended bit for bit alike, which would pass for "
            "perfect stability; pass a loader with shuffle=True that draws from the global generators or its own"
        )

"""Batches in an order that is a function of seed and position."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, final

import torch
from torch import Tensor

from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.determinism import derive_seed, seed_everything
from lottery_tickets._core.reading import Form, check_form, show
from lottery_tickets._core.states import pick

STATE_FORM: Final[Form] = {"num_steps": int, "num_epochs": int, "num_epoch_steps": int, "generators": [Tensor]}


@final
class ResumableBatches:
    """The batches of a data loader, epoch after epoch, from any position on.

    The global generators are seeded where an epoch starts and before each batch is fetched, so that order and
    augmentation do not depend on where a stretch began. Generators that a data loader has of its own go on as the
    caller left them; their state is part of the position. The generators of workers that outlive an epoch
    (`persistent_workers=True`) and those inside a data set are not part of it.

    Args:
        dataloader: Starts anew each time it is iterated over.
        seed: Decides the order, as far as the global generators do.

    Raises:
        TypeError: When `dataloader` is an iterator.
    """

    def __init__(self, dataloader: Iterable[Any], seed: int) -> None:
        check_restartable(dataloader)
        self.dataloader, self.seed = dataloader, seed
        self.num_steps = self.num_epochs = self.num_epoch_steps = 0
        self._iterator: Iterator[Any] | None = None
        self._generator_states: list[Tensor] | None = None  # where the present epoch started

    def rest_of_epoch(self) -> Iterator[Any]:
        """Yields the batches that are left of the present epoch; a batch counts as done once `count` is called.

        Raises:
            ValueError: When the data loader gives no batch, or fewer than were done before.
        """
        if self._iterator is None:
            self._iterator = self._open()
        while True:
            seed_everything(derive_seed(self.seed, "step", self.num_steps))
            try:
                batch = next(self._iterator)
            except StopIteration:
                break
            yield batch
        if not self.num_epoch_steps:
            raise ValueError("the dataloader must hold at least one batch each epoch, but gave none; is it empty?")
        self.num_epochs, self.num_epoch_steps = self.num_epochs + 1, 0
        self._iterator = self._generator_states = None

    def count(self) -> None:
        """Counts the batch that was yielded last."""
        self.num_steps += 1
        self.num_epoch_steps += 1

    def drop(self) -> None:
        """Goes back to the last batch that was counted, after something went wrong with the next."""
        self._iterator = None

    def state(self) -> dict[str, Any]:
        """Returns the position: numbers, and the states of the data loader's own generators."""
        states = self._generator_states or [generator.get_state() for generator in find_generators(self.dataloader)]
        return {
            "num_steps": self.num_steps,
            "num_epochs": self.num_epochs,
            "num_epoch_steps": self.num_epoch_steps,
            "generators": [state.clone() for state in states],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes to a position.

        Raises:
            ValueError: When the state is none, or the data loader has more or fewer generators than when it was saved.
        """
        check_form(state, STATE_FORM, "the saved position")
        own = find_generators(self.dataloader)
        wanted, got = len(state["generators"]), len(own)
        if wanted != got:
            raise ValueError(
                f"the dataloader must have {wanted} generators of its own, as when the state was saved, but has {got}; "
                "build it the same way"
            )
        for number, generator in enumerate(own):
            pick({"its generator": state["generators"][number]}, "its generator", generator.get_state())
        if min(state[name] for name in ("num_steps", "num_epochs", "num_epoch_steps")) < 0:
            raise ValueError(f"the saved position must be from 0 on, but is {show(dict(state))}; was it altered?")
        self.num_steps, self.num_epochs = state["num_steps"], state["num_epochs"]
        self.num_epoch_steps = state["num_epoch_steps"]
        self._iterator, self._generator_states = None, [saved.clone() for saved in state["generators"]]

    def _open(self) -> Iterator[Any]:
        """Starts the present epoch and goes through what was done of it."""
        generators = find_generators(self.dataloader)
        if self._generator_states is None:
            self._generator_states = [generator.get_state() for generator in generators]
        for generator, saved in zip(generators, self._generator_states, strict=True):
            generator.set_state(saved)
        seed_everything(derive_seed(self.seed, "epoch", self.num_epochs))
        iterator = iter(self.dataloader)
        for step in range(self.num_epoch_steps):
            seed_everything(derive_seed(self.seed, "step", self.num_steps - self.num_epoch_steps + step))
            try:
                next(iterator)
            except StopIteration:
                raise ValueError(
                    f"the dataloader must give the {self.num_epoch_steps} batches that were done of this epoch, but "
                    f"gave {step}; is it over the same data?"
                ) from None
        return iterator


def find_generators(dataloader: object) -> list[torch.Generator]:
    """Returns the generators that a data loader has of its own, each once."""
    sampler = getattr(dataloader, "sampler", None)
    inner = getattr(getattr(dataloader, "batch_sampler", None), "sampler", None)
    found = [getattr(owner, "generator", None) for owner in (dataloader, sampler, inner)]
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())

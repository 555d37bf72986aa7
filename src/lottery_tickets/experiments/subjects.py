"""What an experiment is about: something that can be built afresh and trained."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import nn

from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import Mask


class Subject(Protocol):
    """A model with its way of training; an experiment needs no more of it."""

    @property
    def ticket(self) -> Mask | None:
        """The mask of level 1, where the experiment is about a given one; None where it is found by pruning."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Returns what decides its results, JSON-able: a run folder begun with other values is not continued."""
        ...

    def build(self, seed: int, *, replicate: int, is_fresh: bool) -> nn.Module:
        """Returns a model as a replicate starts with it, dense.

        Args:
            seed: Of fresh weights.
            replicate: Which replicate.
            is_fresh: Whether the weights must be fresh, as those of a reinitialised control.
        """
        ...

    def find_weights(self, model: nn.Module) -> Weights:
        """Returns the weights to prune of a model that `build` returned."""
        ...

    def train(
        self,
        model: nn.Module,
        *,
        first_step: int,
        last_step: int,
        seed: int,
        rewind_step: int,
        keep_rewind_point: Callable[[], None],
        keep_early_stop: Callable[[], None],
    ) -> dict[str, Any]:
        """Trains the model in place and returns its history.

        Args:
            model: Holds its mask already.
            first_step: Steps the model has already been trained for.
            last_step: The step to stop after, later than the first; schedules are those of a full training.
            seed: Decides the order of the data.
            rewind_step: After this many steps, `keep_rewind_point()` is called, if the training passes that point.
            keep_rewind_point: Stores theta_k.
            keep_early_stop: Stores the present weights in place of those stored before; called whenever `early_stop`
                is found anew.

        Returns:
            By moment, such as "end" or "early_stop", JSON-able figures: `step` and those that tickets are compared by.
        """
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Returns the figures of a trained model: those at the end of its history, without the step."""
        ...

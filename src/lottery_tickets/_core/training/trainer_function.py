"""A caller's function that trains for some epochs: how it is called, and how its result is taken over."""

from collections.abc import Iterable
from typing import Any, Protocol

from torch import nn

from lottery_tickets._core.states import find_returned_model, load_returned_model


class TrainerFunction(Protocol):
    """Trains a model for some epochs, in place or by returning another model."""

    def __call__(self, model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module | None:
        """Trains."""


def train_epochs(trainer_fn: TrainerFunction, model: nn.Module, dataloader: Iterable[Any], num_epochs: int) -> bool:
    """Has a model trained in place; weights that were pruned stay so.

    Args:
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`.
        model: Trained in place; takes over the weights of another model that the function returns.
        dataloader: Handed to the function.
        num_epochs: Epochs.

    Returns:
        Whether the model itself was trained, and no copy of it.

    Raises:
        ValueError: When a returned model does not fit, or has non-zero weights where the model's are held at zero.
    """
    returned = trainer_fn(model, dataloader, epochs=num_epochs)
    other = find_returned_model(model, returned)
    if other is None:
        return True
    pruned_before = {name: parameter.detach() == 0 for name, parameter in model.named_parameters()}
    state = load_returned_model(model, other)
    # Only the hook of a held mask makes a weight zero after another value was loaded.
    revived = [
        name
        for name, parameter in model.named_parameters()
        if bool((pruned_before[name] & (parameter.detach() == 0) & (state[name] != 0)).any())
    ]
    if revived:
        raise ValueError(
            "trainer_fn must return the model it is given or a copy.deepcopy of it, which keeps the mask, but "
            f"the model it returned has non-zero weights at pruned places of {revived}"
        )
    return False

"""A caller's function that trains for some epochs: how it is called, and how its result is taken over."""

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor, nn

from lottery_tickets._core.names import unwrap
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.fsdp import reshard
from lottery_tickets._core.states import find_returned_model, load_returned_model
from lottery_tickets._core.weights import Weights


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
        ValueError: When a returned model does not fit, or has other weights where the model is held to a mask.
    """
    returned = trainer_fn(model, dataloader, epochs=num_epochs)
    other = find_returned_model(model, returned)
    if other is None:
        return True
    reshard(unwrap(model))
    parameters = dict(model.named_parameters())
    state = load_returned_model(model, other)
    # Only the hook of a held mask gives a weight another value than was loaded.
    here = {name: _count_differing(see_local(p.detach()), see_local(state[name])) for name, p in parameters.items()}
    if revived := [name for name, num in Weights.from_tensors(parameters).count(here).items() if num]:
        raise ValueError(
            "trainer_fn must return the model it is given or a copy.deepcopy of it, which keeps the mask, but "
            f"the model it returned has other weights at pruned places of {revived}"
        )
    return False


def _count_differing(values: Tensor, loaded: Tensor) -> int:
    """Returns how many finite values differ from those loaded."""
    return int(((values != loaded.to(values)) & values.isfinite()).sum())

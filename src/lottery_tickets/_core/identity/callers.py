"""The identities of all that a caller hands to a run, for the folder that the run is kept in."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from lottery_tickets._core.identity.code import identify_architecture, identify_callable
from lottery_tickets._core.identity.data import identify_data
from lottery_tickets._core.identity.identities import Identity


def identify_given(
    *,
    model: nn.Module,
    trainer_fn: Callable[..., object] | None,
    trainer_id: str | None,
    data: Iterable[Any],
    data_id: str | None,
    evaluation_data: Iterable[Any] | None = None,
    functions: dict[str, object] | None = None,
) -> dict[str, Identity]:
    """Returns the identity of each thing by what it is called.

    Args:
        model: Its architecture counts, its weights do not.
        trainer_fn: The caller's trainer; None for our own, which the settings of a run describe.
        trainer_id: The caller's name for it.
        data: What is trained on.
        data_id: The caller's name for it, and for what is measured on.
        evaluation_data: What is measured on, where that is something else.
        functions: Further functions by the argument that they are given as; what is no function is left out.
    """
    found = {
        "model": identify_architecture(model),
        "data": identify_data(data, data_id),
    }
    if trainer_fn is not None:
        found["trainer_fn"] = identify_callable(trainer_fn, trainer_id)
    if evaluation_data is not None:
        found["evaluation data"] = identify_data(evaluation_data, data_id, what="the evaluation data")
    for name, function in (functions or {}).items():
        if callable(function):
            found[name] = identify_callable(function, what=name, argument="trainer_id")
    return found

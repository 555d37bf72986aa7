"""Asked before a long run: is there room for what it certainly holds."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from lottery_tickets._core.devices import find_free_bytes
from lottery_tickets._core.memory.sizes import Certain, Parts
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.sharding.dtensors import see_local

GB: Final = 1e9
SMALLEST: Final = 100_000_000  # bytes of weights; of smaller models nothing is asked, because it would take time


def is_large(model: object) -> bool:
    """Returns whether it is worth asking for a model; what is none is refused later."""
    return (
        isinstance(model, nn.Module)
        and sum(see_local(weight).nbytes for weight in unwrap(model).parameters()) >= SMALLEST
    )


def demand_room(what: str, model: nn.Module, needed: Certain, others: Mapping[str, Certain]) -> None:
    """Raises where what is certain to be held is more than the memory that is left; what may fit is let through.

    Args:
        what: That is about to start, in words.
        model: Whose weights are in memory already.
        needed: What it holds beside these.
        others: By words that say how, what it would hold otherwise.

    Raises:
        ValueError: Says what is needed and what is left, and which of the others would fit.
    """
    device = next(unwrap(model).parameters()).device
    lacking = _find_lacking(device, needed)
    if lacking is None:
        return
    place, parts, free = lacking
    named = ", ".join(f"{name} {num_bytes / GB:.1f}" for name, num_bytes in parts.items() if num_bytes)
    fitting = [words for words, other in others.items() if _find_lacking(device, other) is None]
    advice = f"; {' or '.join(fitting)} would fit" if fitting else ""
    raise ValueError(
        f"{what} must hold {sum(parts.values()) / GB:.1f} GB beside the model ({named}), whatever the batch, but "
        f"{place} has {free / GB:.1f} GB left{advice}; plan_memory(model) and `lottery-tickets plan` say what fits"
    )


def _find_lacking(device: torch.device, needed: Certain) -> tuple[str, Parts, int] | None:
    """Returns where there is too little memory, for what, and how much there is."""
    places = (
        {"cpu": needed.device | needed.host}
        if device.type == "cpu"
        else {str(device): needed.device, "cpu": needed.host}
    )
    for place, parts in places.items():
        free = find_free_bytes(place, with_swap=True)
        if free is not None and sum(parts.values()) > free:
            return "this machine" if place == "cpu" else place, parts, free
    return None

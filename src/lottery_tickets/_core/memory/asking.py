"""What each long analysis asks before it starts, and what it could do with less."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.memory.room import demand_room, is_large
from lottery_tickets._core.memory.sizes import BITS, FULL_BITS, Certain, ModelSizes, find_certain
from lottery_tickets._core.training.settings import TrainerSettings


def ask_before_early_bird(model: nn.Module, training: TrainerSettings | None, choices: Mapping[str, Any]) -> None:
    """Raises a ValueError where an early-bird search certainly does not fit; asks nothing of small models.

    Args:
        model: That is trained.
        training: How the default trainer trains; None where the caller's does, of whose memory nothing is known.
        choices: `include` and `exclude`.
    """
    if not is_large(model):
        return
    sizes = ModelSizes.of_model(model, **choices)
    sgd = find_certain("early_bird_sgd", sizes)
    if training is None:
        demand_room("an early-bird search", model, Certain({}, sgd.host), {})
        return
    if training.use_sgd:
        needed = find_certain("early_bird_sgd", sizes, momentum=bool(training.momentum))
        others = {"SGD without momentum": sgd} if training.momentum else {}
        demand_room("an early-bird search by SGD", model, needed, others)
        return
    bits = None if training.adamw_bits == FULL_BITS else training.adamw_bits // BITS
    packed = find_certain("early_bird_adamw", sizes, adam_bytes=1)
    others = {"SGD (use_sgd=True)": sgd} | ({} if bits else {"AdamW with states of 8 bits (adamw_bits=8)": packed})
    demand_room(
        "an early-bird search by AdamW", model, find_certain("early_bird_adamw", sizes, adam_bytes=bits), others
    )


def ask_before_scores(model: nn.Module, num_values: int, options: ScoringOptions, choices: Mapping[str, Any]) -> None:
    """Raises a ValueError where the sums of scores certainly do not fit; asks nothing of small models.

    Args:
        model: That is scored.
        num_values: How many numbers are summed a weight, without their squares.
        options: How.
        choices: `include` and `exclude`.
    """
    if not is_large(model):
        return
    parts = find_certain("fisher", ModelSizes.of_model(model, **choices)).device
    sums = {name: num_bytes * num_values * (1 + options.standard_errors) for name, num_bytes in parts.items()}
    on_host = Certain({}, sums)
    others = {'sums on the CPU (ScoringOptions(offload="cpu"))': on_host}
    if options.standard_errors:
        others["scores without standard errors"] = Certain({name: num // 2 for name, num in sums.items()}, {})
    demand_room("scoring weights", model, on_host if options.offload else Certain(sums, {}), others)


def ask_before_pruning(model: nn.Module, *, by_adam: bool, choices: Mapping[str, Any]) -> None:
    """Raises a ValueError where iterative pruning certainly does not fit; asks nothing of small models.

    Args:
        model: That is trained.
        by_adam: Whether by our trainer; of a caller's nothing is known.
        choices: `include` and `exclude`.
    """
    if not is_large(model):
        return
    needed = find_certain("imp", ModelSizes.of_model(model, **choices))
    host_alone = Certain({}, needed.host)
    others = {"a trainer_fn that takes less than Adam's two numbers a weight": host_alone} if by_adam else {}
    demand_room("iterative pruning", model, needed if by_adam else host_alone, others)

"""Linear mode connectivity: the error on the line between two networks, and from which step on training is stable."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.connectivity.lines import compute_linear_connectivity
from lottery_tickets.connectivity.stable_rewinding import compute_stable_rewinding_epoch, find_stable_rewinding_step

__all__ = [
    "compute_linear_connectivity",
    "compute_stable_rewinding_epoch",
    "find_stable_rewinding_step",
]
__dir__ = show_only(__all__)

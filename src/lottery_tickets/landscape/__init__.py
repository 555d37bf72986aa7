"""The loss landscape around a model."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.landscape.surface import compute_loss_landscape

__all__ = [
    "compute_loss_landscape",
]
__dir__ = show_only(__all__)

"""What training moved: the weights that changed, as a mask and in figures, and as a patch."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.changes.change_mask import compute_change_mask
from lottery_tickets.changes.comparison import Changes, compute_changes
from lottery_tickets.changes.sparse_difference import DifferenceReport, apply_difference, save_difference
from lottery_tickets.changes.statistics import ChangeFigures, ChangeStatistics, compute_change_statistics

__all__ = [
    "ChangeFigures",
    "ChangeStatistics",
    "Changes",
    "DifferenceReport",
    "apply_difference",
    "compute_change_mask",
    "compute_change_statistics",
    "compute_changes",
    "save_difference",
]
__dir__ = show_only(__all__)

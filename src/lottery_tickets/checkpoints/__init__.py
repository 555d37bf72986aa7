"""Checkpoints of any size: their weights read block by block, and written anew."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.checkpoints.base import check_base
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.checkpoints.opening import open_weights
from lottery_tickets.checkpoints.statistics import LayerStatistics, compute_layer_statistics
from lottery_tickets.checkpoints.wanda import create_wanda_mask

__all__ = [
    "CheckpointWeights",
    "LayerStatistics",
    "check_base",
    "compute_layer_statistics",
    "create_wanda_mask",
    "open_weights",
]
__dir__ = show_only(__all__)

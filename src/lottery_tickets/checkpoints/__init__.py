"""Checkpoints of any size: their weights read block by block, and written anew."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights

__all__ = ["CheckpointWeights"]
__dir__ = show_only(__all__)

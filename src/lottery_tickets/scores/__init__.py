"""Scores of the literature: SNIP, GraSP, Wanda, SynFlow, movement; and `Importance`, what a score is."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.scores.importance import Importance
from lottery_tickets.scores.movement import record_movement
from lottery_tickets.scores.snip_grasp_wanda import (
    compute_grasp_importance,
    compute_snip_importance,
    compute_wanda_importance,
)
from lottery_tickets.scores.synflow import compute_synflow_importance

__all__ = [
    "Importance",
    "compute_grasp_importance",
    "compute_snip_importance",
    "compute_synflow_importance",
    "compute_wanda_importance",
    "record_movement",
]
__dir__ = show_only(__all__)

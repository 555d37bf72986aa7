"""Masks: what they are, how they are held on a model, what they are compared with, how alike two are."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.masks.controls import create_random_mask, reinitialise_, shuffle_mask
from lottery_tickets.masks.holding import apply_mask, check_held, compute_sparsity, hold_mask, masked, remove_mask
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.masks.overlap import compute_overlap_matrix, compute_ticket_overlap

__all__ = [
    "Mask",
    "apply_mask",
    "as_mask",
    "check_held",
    "compute_overlap_matrix",
    "compute_sparsity",
    "compute_ticket_overlap",
    "create_random_mask",
    "hold_mask",
    "masked",
    "reinitialise_",
    "remove_mask",
    "shuffle_mask",
]
__dir__ = show_only(__all__)

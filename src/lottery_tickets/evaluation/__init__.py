"""What a ticket is worth: its quality, how much pruning a model bears, whether a model is what its mask says."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.evaluation.change_quality import compute_change_mask_quality
from lottery_tickets.evaluation.performance import ModelPerformance, compute_performance
from lottery_tickets.evaluation.quality import compute_lottery_ticket_quality
from lottery_tickets.evaluation.robustness import compute_pruning_robustness
from lottery_tickets.evaluation.strategies import compare_pruning_strategies
from lottery_tickets.evaluation.validation import validate_pruning_correctness

__all__ = [
    "ModelPerformance",
    "compare_pruning_strategies",
    "compute_change_mask_quality",
    "compute_lottery_ticket_quality",
    "compute_performance",
    "compute_pruning_robustness",
    "validate_pruning_correctness",
]
__dir__ = show_only(__all__)

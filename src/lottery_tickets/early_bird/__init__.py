"""Early-bird tickets: train until the mask that pruning would draw no longer changes, and draw it then."""

from lottery_tickets.early_bird.convergence import ConvergenceRule, detect_early_bird_convergence
from lottery_tickets.early_bird.search import compute_early_bird_tickets
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher

__all__ = [
    "ConvergenceRule",
    "EarlyBirdWatcher",
    "compute_early_bird_tickets",
    "detect_early_bird_convergence",
]

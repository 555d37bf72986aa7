from .convergence import ConvergenceRule, detect_early_bird_convergence
from .probe import Probe
from .search import compute_early_bird_tickets
from .watcher import EarlyBirdWatcher

__all__ = [
    "ConvergenceRule",
    "EarlyBirdWatcher",
    "Probe",
    "compute_early_bird_tickets",
    "detect_early_bird_convergence",
]

"""Find, prove and use winning lottery tickets: sparse subnetworks that train as well as the dense network."""

from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.training.light_training import TrainerSettings
from lottery_tickets.connectivity import (
    compute_linear_connectivity,
    compute_stable_rewinding_epoch,
    find_stable_rewinding_step,
)
from lottery_tickets.early_bird import (
    ConvergenceRule,
    EarlyBirdWatcher,
    compute_early_bird_tickets,
    detect_early_bird_convergence,
)
from lottery_tickets.evaluation import (
    compute_lottery_ticket_quality,
    compute_pruning_robustness,
    validate_pruning_correctness,
)
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.imp_wrapper import compute_iterative_magnitude_pruning
from lottery_tickets.importance_scoring import (
    compute_fisher_importance,
    compute_gradient_importance,
    compute_hybrid_importance,
    compute_magnitude_importance,
    compute_taylor_importance,
    create_importance_mask,
)
from lottery_tickets.landscape import compute_loss_landscape
from lottery_tickets.magnitude_pruning import compute_layerwise_magnitude_ticket, create_magnitude_mask
from lottery_tickets.masks import (
    Mask,
    apply_mask,
    as_mask,
    compute_overlap_matrix,
    compute_sparsity,
    compute_ticket_overlap,
    create_random_mask,
    hold_mask,
    masked,
    reinitialise_,
    remove_mask,
    shuffle_mask,
)
from lottery_tickets.planning import recommend_settings
from lottery_tickets.scores import (
    Importance,
    compute_grasp_importance,
    compute_snip_importance,
    compute_synflow_importance,
    compute_wanda_importance,
    record_movement,
)
from lottery_tickets.storage import load_results, save_results
from lottery_tickets.utils import compute_histogram_quantile, ensure_deterministic_pruning

__all__ = [
    "ConvergenceRule",
    "EarlyBirdWatcher",
    "Importance",
    "Mask",
    "PruningSchedule",
    "ScoringOptions",
    "TrainerSettings",
    "apply_mask",
    "as_mask",
    "compute_early_bird_tickets",
    "compute_fisher_importance",
    "compute_gradient_importance",
    "compute_grasp_importance",
    "compute_histogram_quantile",
    "compute_hybrid_importance",
    "compute_iterative_magnitude_pruning",
    "compute_layerwise_magnitude_ticket",
    "compute_linear_connectivity",
    "compute_loss_landscape",
    "compute_lottery_ticket_quality",
    "compute_magnitude_importance",
    "compute_overlap_matrix",
    "compute_pruning_robustness",
    "compute_snip_importance",
    "compute_sparsity",
    "compute_stable_rewinding_epoch",
    "compute_synflow_importance",
    "compute_taylor_importance",
    "compute_ticket_overlap",
    "compute_wanda_importance",
    "create_importance_mask",
    "create_magnitude_mask",
    "create_random_mask",
    "detect_early_bird_convergence",
    "ensure_deterministic_pruning",
    "find_stable_rewinding_step",
    "hold_mask",
    "load_results",
    "masked",
    "recommend_settings",
    "record_movement",
    "reinitialise_",
    "remove_mask",
    "save_results",
    "shuffle_mask",
    "validate_pruning_correctness",
]

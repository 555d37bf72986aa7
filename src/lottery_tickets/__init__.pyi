from . import (
    changes as changes,
)
from . import (
    checkpoints as checkpoints,
)
from . import (
    connectivity as connectivity,
)
from . import (
    doctor as doctor,
)
from . import (
    early_bird as early_bird,
)
from . import (
    evaluation as evaluation,
)
from . import (
    imp_wrapper as imp_wrapper,
)
from . import (
    importance_scoring as importance_scoring,
)
from . import (
    integrations as integrations,
)
from . import (
    landscape as landscape,
)
from . import (
    magnitude_pruning as magnitude_pruning,
)
from . import (
    masks as masks,
)
from . import (
    planning as planning,
)
from . import (
    scores as scores,
)
from . import (
    storage as storage,
)
from . import (
    structured as structured,
)
from . import (
    tickets as tickets,
)
from . import (
    utils as utils,
)
from . import (
    workloads as workloads,
)
from ._core.gradients.options import ScoringOptions
from ._core.training.settings import TrainerSettings
from .changes import compute_change_mask, compute_change_statistics, compute_changes
from .checkpoints import CheckpointWeights, create_wanda_mask
from .connectivity import (
    compute_linear_connectivity,
    compute_stable_rewinding_epoch,
    find_stable_rewinding_step,
)
from .early_bird import (
    ConvergenceRule,
    EarlyBirdWatcher,
    Probe,
    compute_early_bird_tickets,
    detect_early_bird_convergence,
)
from .evaluation import (
    compare_pruning_strategies,
    compute_change_mask_quality,
    compute_lottery_ticket_quality,
    compute_performance,
    compute_pruning_robustness,
    validate_pruning_correctness,
)
from .experiments.schedules import PruningSchedule
from .imp_wrapper import compute_iterative_magnitude_pruning
from .importance_scoring import (
    compute_fisher_importance,
    compute_gradient_importance,
    compute_hybrid_importance,
    compute_magnitude_importance,
    compute_taylor_importance,
    create_importance_mask,
)
from .landscape import compute_loss_landscape
from .magnitude_pruning import compute_layerwise_magnitude_ticket, create_magnitude_mask
from .masks import (
    Mask,
    apply_mask,
    as_mask,
    check_held,
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
from .planning import plan_memory, recommend_settings
from .scores import (
    Importance,
    compute_grasp_importance,
    compute_snip_importance,
    compute_synflow_importance,
    compute_wanda_importance,
    record_movement,
)
from .storage import load_results, save_results
from .structured import compute_costs, create_unit_mask, export_model, load_export, shrink
from .tickets import Ticket, load_ticket, save_ticket, use_ticket
from .utils import compute_histogram_quantile, ensure_deterministic_pruning

__version__: str

__all__ = [
    "CheckpointWeights",
    "ConvergenceRule",
    "EarlyBirdWatcher",
    "Importance",
    "Mask",
    "Probe",
    "PruningSchedule",
    "ScoringOptions",
    "Ticket",
    "TrainerSettings",
    "apply_mask",
    "as_mask",
    "check_held",
    "compare_pruning_strategies",
    "compute_change_mask",
    "compute_change_mask_quality",
    "compute_change_statistics",
    "compute_changes",
    "compute_costs",
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
    "compute_performance",
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
    "create_unit_mask",
    "create_wanda_mask",
    "detect_early_bird_convergence",
    "ensure_deterministic_pruning",
    "export_model",
    "find_stable_rewinding_step",
    "hold_mask",
    "load_export",
    "load_results",
    "load_ticket",
    "masked",
    "plan_memory",
    "recommend_settings",
    "record_movement",
    "reinitialise_",
    "remove_mask",
    "save_results",
    "save_ticket",
    "shrink",
    "shuffle_mask",
    "use_ticket",
    "validate_pruning_correctness",
]

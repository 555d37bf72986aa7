"""The results that functions return: plain dicts at run time, JSON-able but for their tensors and masks."""

from typing import Any, TypedDict

from torch import Tensor

from lottery_tickets.masks import Mask


class TrainingRow(TypedDict):
    """One training of an experiment.

    `history` holds `end` and, with our own trainer, `early_stop` and `curve`: JSON-able figures.
    """

    replicate: int
    level: int
    branch: str
    num_weights: int
    num_kept: int
    density: float
    history: dict[str, Any]


class PruningResults(TypedDict):
    """What `compute_iterative_magnitude_pruning` returns."""

    simulated: bool
    target_sparsity: float
    masks: list[Mask]
    final_mask: Mask
    rewind_state: dict[str, Tensor] | None
    trainings: list[TrainingRow]
    run_folder: str | None

"""The type of an early-bird run: what its checks saw."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from statistical_report_generator.schemas.common import Count, NotNegative, Part, Result, Share

Correlation = Annotated[float, Field(ge=-1, le=1)]
EarlyBirdVerdict = Literal["converged", "still changing", "trivially stable", "stable, learning not shown", "diverged"]


class EarlyBirdCheck(Part):
    """What one check saw; see `EarlyBirdCheckpoint` of `lottery_tickets` for what each figure is."""

    epoch: NotNegative
    step: NotRequired[Count | None]
    correlation: Correlation | None
    stable: bool
    num_stable: NotRequired[Count]
    verdict: NotRequired[str]
    reason: NotRequired[str]
    start_correlation: Correlation | None
    corrected_distance: float | None
    corrected_start_distance: float | None
    queue_distances: list[float]
    share_moved: NotRequired[Share | None]
    movement: float | None
    held_out: NotRequired[bool | None]
    gap: NotRequired[float | None]
    gap_z: NotRequired[float | None]
    loss: float | None
    start_loss: NotRequired[float | None]
    learning_rate: NotRequired[float | None]
    num_nonfinite_losses: NotRequired[Count]
    layers: NotRequired[dict[str, Any]]


class EarlyBird(Result):
    """What `compute_early_bird_tickets` and its watchers found.

    Attributes:
        checkpoints: The checks, in order.
        verdict: After the last.
        method: What was compared.
        convergence_threshold: The least rank correlation that is stable.
        convergence_epoch: None when it did not converge.
        target_sparsity: Of the ticket.
        reason: Of the verdict.
        settings: All else.
        findings: What it means, in sentences.
    """

    checkpoints: Annotated[list[EarlyBirdCheck], Field(min_length=1)]
    verdict: EarlyBirdVerdict
    method: Literal["magnitude_ranking", "mask_distance"]
    convergence_threshold: Share
    convergence_epoch: float | None
    target_sparsity: Share
    reason: NotRequired[str]
    network: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    findings: NotRequired[list[str]]

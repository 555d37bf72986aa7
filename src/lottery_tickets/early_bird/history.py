"""What the checks of a training record, and what can be said of it: the vocabulary of verdicts."""

from typing import Final, Literal, TypedDict

Method = Literal["magnitude_ranking", "mask_distance"]
Verdict = Literal["converged", "still changing", "trivially stable", "stable, learning not shown", "diverged"]

METHODS: Final[tuple[Method, ...]] = ("magnitude_ranking", "mask_distance")


class PartEvidence(TypedDict):
    """Neighbouring layers whose part in what was learnt is judged as one.

    Attributes:
        weights: Their names.
        num_weights: How many ranked weights they have.
        along_z: How much they moved down the gradient of the probe's loss at the start, weight by weight.
        along_p: How often fair signs go down as much.
        closing_z: How much the gap closes without what they moved, unit by unit. None where it was not measured,
            because it could not change the verdict.
        closing_p: How often fair signs close it as much.
    """

    weights: list[str]
    num_weights: int
    along_z: float
    along_p: float
    closing_z: float | None
    closing_p: float | None


class LayerEvidence(TypedDict):
    """One layer at one check; see `EarlyBirdCheckpoint` for what each figure is."""

    correlation: float | None
    mask_distance: float
    chance_distance: float
    start_distance: float
    start_chance_distance: float
    density: float
    share_moved: float


class EarlyBirdCheckpoint(TypedDict):
    """What one check saw; JSON-able. Figures that a diverged model does not have are None.

    Attributes:
        epoch: Epochs of training so far; a fraction within an epoch.
        step: Batches so far, None where a `trainer_fn` counts them.
        correlation: Spearman's rank correlation of all magnitudes with those at the check before; at the first check
            with the starting weights.
        stable: Whether this check meets the criterion of the method.
        num_stable: How many checks in a row do, with this one; a miss sets it to 0.
        finite: Whether all weights, and the loss where it is known, are finite.
        verdict: What can be said after this check.
        reason: Why, with the figures.
        start_correlation: Spearman's rank correlation with the starting weights.
        mask_distance: Share of the weights that differ between the masks of this check and of the one before.
        chance_distance: What two unrelated masks of the same layer densities have.
        corrected_distance: mask_distance / chance_distance.
        queue_distances: mask_distance from each mask in the queue, the oldest first (method "mask_distance").
        start_distance: Share of the weights that differ from the mask of the starting weights.
        start_chance_distance: What two unrelated masks have.
        corrected_start_distance: start_distance / start_chance_distance.
        share_moved: Share of the weights that do not have their starting value.
        movement: |w - w_0| / |w_0|, Euclidean norms over all weights.
        held_out: Whether the probe is of samples that are not trained on. None without a probe, and so are all figures
            of it; those of a diverged model too.
        probe_loss: Mean loss on the probe.
        start_probe_loss: The same at the start.
        gap: Mean loss on the probe with exchanged targets, minus that with the samples' own.
        start_gap: The same at the start.
        gap_spread: Root mean square of the gap of a pair of samples.
        gap_z: How much positive gaps prevail: the sum of their signed ranks in standard deviations.
        gap_p: How often fair signs give as much.
        rise_p: How often fair signs give as large a rise of the gaps since the start.
        worse_p: How often fair signs give as large a rise of the losses since the start.
        learnable_p: How often fair signs open as much of a gap on one half of the probe as a step on its other half
            did, at the start; None for held-out samples.
        parts: Where the gap comes from, by neighbouring layers, see `PartEvidence`.
        loss: Mean training loss since the last check, or the loss at the check; None where it is not recorded. It is
            for reading: no verdict rests on a loss that has fallen.
        start_loss: The same at the start.
        learning_rate: As the optimizer has it; None where it is not recorded.
        num_batches: Batches since the last check; None where they are not counted.
        num_nonfinite_losses: Batches since the last check that were skipped because their loss was not finite.
        seconds: How long the check took.
        layers: The figures by parameter name.
    """

    epoch: float
    step: int | None
    correlation: float | None
    stable: bool
    num_stable: int
    finite: bool
    verdict: Verdict
    reason: str
    start_correlation: float | None
    mask_distance: float | None
    chance_distance: float | None
    corrected_distance: float | None
    queue_distances: list[float]
    start_distance: float | None
    start_chance_distance: float | None
    corrected_start_distance: float | None
    share_moved: float | None
    movement: float | None
    held_out: bool | None
    probe_loss: float | None
    start_probe_loss: float | None
    gap: float | None
    start_gap: float | None
    gap_spread: float | None
    gap_z: float | None
    gap_p: float | None
    rise_p: float | None
    worse_p: float | None
    learnable_p: float | None
    parts: list[PartEvidence]
    loss: float | None
    start_loss: float | None
    learning_rate: float | None
    num_batches: int | None
    num_nonfinite_losses: int
    seconds: float
    layers: dict[str, LayerEvidence]


class Detection(TypedDict):
    """What `detect_early_bird_convergence` returns."""

    converged: bool
    convergence_epoch: float | None
    verdict: Verdict
    reason: str
    verdicts: list[Verdict]


def average_losses(losses: tuple[float | None, ...]) -> float | None:
    """Returns the mean of the losses of all processes, of which each sees other samples; None where one has none."""
    told = [loss for loss in losses if loss is not None]
    return sum(told) / len(told) if len(told) == len(losses) else None

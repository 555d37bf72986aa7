"""The types of what pruning does to a trained network: quality, robustness, validation, strategies."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field

from statistical_report_generator.schemas.common import (
    Count,
    NotNegative,
    Part,
    Performance,
    Result,
    Share,
    Sparsities,
)
from statistical_report_generator.schemas.costs import Costs
from statistical_report_generator.schemas.experiments import Experiment

Curve = Literal["magnitude", "random"]


class Quality(Result):
    """A network as it is and under a mask, see `compute_lottery_ticket_quality`.

    Attributes:
        performance_retention: Share of the performance that is left; None where the ratio has no meaning.
        metric: What performance is measured by.
        higher_is_better: Whether more of it is better.
        sparsity: Of the mask.
        layer_sparsities: Of it, by layer.
        retrained: The experiment that trained the ticket again; None when none did.
    """

    performance_retention: NotNegative | None
    metric: str
    higher_is_better: NotRequired[bool]
    baseline_performance: float
    ticket_performance: float | None
    baseline_loss: float
    ticket_loss: float | None
    baseline: NotRequired[Performance]
    ticket: NotRequired[Performance]
    sparsity: Share
    layer_sparsities: NotRequired[Sparsities]
    kind: NotRequired[str]
    retrained: NotRequired[Experiment | None]


class ModelPerformance(Result):
    """A network as it is, see `compute_performance`.

    Attributes:
        metric: What performance is measured by.
        higher_is_better: Whether more of it is better.
        performance: The metric; None when it is not finite.
        num_predictions: Labels that were predicted.
    """

    metric: str
    higher_is_better: NotRequired[bool]
    performance: float | None
    loss: float | None
    accuracy: NotRequired[Share | None]
    perplexity: NotRequired[float | None]
    num_predictions: Count
    network: NotRequired[str]


class RobustnessPoint(Performance):
    """A network at one sparsity."""

    sparsity: Share
    actual_sparsity: Share
    layer_sparsities: NotRequired[Sparsities]
    retention: NotNegative | None


class RobustnessMetrics(Part):
    """What sums the curves up, see `compute_pruning_robustness`."""

    winning_ticket_score: float | None
    optimal_sparsity: Share
    critical_sparsity: Share | None


class RobustnessSettings(Part):
    """How robustness was measured: figures of the network as it is, and what counts as kept and as lost."""

    baseline: NotRequired[Performance | None]
    tolerance: NotRequired[Share]
    critical_retention: NotRequired[Share]


class Robustness(Result):
    """A trained network at growing sparsities, not retrained, see `compute_pruning_robustness`."""

    sparsity_curves: Annotated[dict[Curve, Annotated[list[RobustnessPoint], Field(min_length=1)]], Field(min_length=1)]
    robustness_metrics: RobustnessMetrics
    baseline_loss: float
    metric: str
    settings: NotRequired[RobustnessSettings]
    network: NotRequired[str]


class Check(Part):
    """One check: passed, failed, or None with the reason why it was not made."""

    passed: bool | None
    reason: NotRequired[str]


class Validation(Result):
    """Whether a model is pruned as its mask says, see `validate_pruning_correctness`."""

    valid: bool
    performs_well: NotRequired[bool | None]
    applied: NotRequired[bool | None]


def check_validation(validation: Any) -> Any:  # noqa: ANN401 - a `Validation`, whose checks have names of their own
    """Returns a validation all of whose checks say whether they passed; raises ValueError otherwise."""
    checks = list_checks(validation)
    if not checks:
        raise ValueError("a validation must hold a check, got none")
    for name, check in checks.items():
        if "passed" not in check or not (check["passed"] is None or isinstance(check["passed"], bool)):
            raise ValueError(
                f"the check {name!r} must say passed: true, false or null, got {check.get('passed', '')!r}"
            )
    return validation


def list_checks(validation: Any) -> dict[str, Any]:  # noqa: ANN401 - as check_validation
    """Returns by name the checks of a validation."""
    return {
        name: value
        for name, value in validation.items()
        if isinstance(value, dict) and name not in Result.__annotations__
    }


class StrategyRow(Performance):
    """A network pruned by one score to one sparsity."""

    strategy: str
    sparsity: Share
    actual_sparsity: Share
    layer_sparsities: NotRequired[Sparsities]
    retention: NotNegative | None


class Strategies(Result):
    """A trained network pruned by several scores, not retrained."""

    rows: Annotated[list[StrategyRow], Field(min_length=1)]
    metric: str
    baseline: Performance
    num_samples: NotRequired[Count | None]
    settings: NotRequired[dict[str, Any]]
    network: NotRequired[str]


class Evaluation(Result):
    """What the command `evaluate` measured: any of its parts."""

    network: NotRequired[str]
    performance: NotRequired[ModelPerformance]
    quality: NotRequired[Quality]
    validation: NotRequired[Annotated[Validation, AfterValidator(check_validation)]]
    robustness: NotRequired[Robustness]
    costs: NotRequired[Costs]
    retrained: NotRequired[Experiment]
    claims: NotRequired[dict[str, Any]]

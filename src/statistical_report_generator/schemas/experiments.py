"""The types of what was trained: experiments, and the pairs of linear mode connectivity."""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field

from statistical_report_generator.schemas.common import (
    Count,
    Interval,
    NotNegative,
    Part,
    Position,
    Result,
    Share,
    need_lengths,
)

Curve = dict[str, list[float | None]]


def _check_curve(curve: Curve) -> Curve:
    if "step" not in curve:
        raise ValueError(f"a curve must have its steps under 'step', got {sorted(curve)[:8]}")
    need_lengths(len(curve["step"]), **{str(name): values for name, values in curve.items()})
    if None in curve["step"]:
        raise ValueError("each step of a curve must be a number, got null")
    return curve


class History(Part):
    """What a training reports: figures at moments, and, with our own trainer, its learning curve.

    Attributes:
        curve: Lists of one length: `step`, and figures at it.
        early_stop: Figures at the least validation loss.
        end: Figures after the last step.
    """

    curve: NotRequired[Annotated[Curve, AfterValidator(_check_curve)]]
    early_stop: NotRequired[dict[str, Any]]
    end: NotRequired[dict[str, Any]]


class Layer(Part):
    """One layer of a training.

    Attributes:
        num_weights: There are.
        num_kept: Of them by the mask.
        num_moved: Of the kept ones, those that ended at another value than they started from.
        dtype: What they are stored in, such as "bfloat16".
    """

    num_weights: Count
    num_kept: Count
    num_moved: NotRequired[Count]
    dtype: NotRequired[str]


def _check_layer(layer: Layer) -> Layer:
    if not layer.get("num_moved", 0) <= layer["num_kept"] <= layer["num_weights"]:
        raise ValueError(
            f"a layer must move at most what it keeps, and keep at most all, got num_moved "
            f"{layer.get('num_moved', 0)}, num_kept {layer['num_kept']} and num_weights {layer['num_weights']}"
        )
    return layer


class Training(Part):
    """One training of an experiment.

    Attributes:
        replicate: Which repetition.
        level: Rounds of pruning before it; 0 is the dense network.
        branch: "ticket", one of its controls, or what pairs are trained of.
        density: Share of the weights that are kept.
        num_weights: There are.
        num_kept: Of them.
        history: What it reports.
        layers: By name the counts of each pruned layer; earlier versions recorded none.
        share_moved: Share of the kept weights that ended at another value than they started from; as `layers`.
    """

    replicate: Position
    level: Position
    branch: str
    density: Share
    num_weights: NotRequired[Count]
    num_kept: NotRequired[Count]
    history: History
    layers: NotRequired[dict[str, Annotated[Layer, AfterValidator(_check_layer)]]]
    share_moved: NotRequired[Share]


class Experiment(Result):
    """Trainings of a dense network, tickets and controls.

    Attributes:
        trainings: One row each.
        simulated: Whether nothing was trained.
        plan: What was asked for.
        environments: That computed it.
        unidentified: What of code and data could not be identified, in words.
        looks: How many replicates there were each time that results were looked at.
        verification: What a check of the run from its files found.
    """

    trainings: list[Training]
    simulated: NotRequired[bool]
    plan: NotRequired[dict[str, Any] | None]
    environments: NotRequired[list[dict[str, Any]]]
    unidentified: NotRequired[list[str]]
    looks: NotRequired[list[Count]]


class ConnectivityRow(Part):
    """Pairs of copies that part at one step.

    Attributes:
        step: At which they part.
        network: What it is called.
        num_pairs: That were trained.
        num_stable: Of them.
        instability: Largest error on the line minus the mean of the ends' errors; over pairs.
        barrier: The same of the loss; None where it is not finite.
        accuracy: Of both ends.
    """

    step: Position
    network: str
    num_pairs: Count
    num_stable: Count
    instability: Interval
    barrier: Interval | None
    accuracy: Interval


class ConnectivitySettings(Part):
    """Attributes: threshold: instability below which training is stable, a share."""

    threshold: Share


class Connectivity(Result):
    """What the command `connectivity` found: from which step on training is stable to its own noise."""

    rows: Annotated[list[ConnectivityRow], Field(min_length=1)]
    settings: ConnectivitySettings
    searches: dict[str, Any]
    network: NotRequired[str]
    findings: NotRequired[list[str]]


class LineEnd(Part):
    """One end of a line between two networks."""

    loss: float
    accuracy: Share | None
    error: Share | None


class Pair(Part):
    """The line between two networks, see `compute_linear_connectivity`."""

    alphas: list[float]
    errors: list[Share | None] | None
    losses: list[float | None]
    first: LineEnd
    second: LineEnd
    instability: NotNegative | None
    stable: bool | None
    barrier: float | None
    num_nonfinite: NotRequired[Count]


def _check_pair(pair: Pair) -> Pair:
    need_lengths(len(pair["alphas"]), errors=pair["errors"], losses=pair["losses"])
    if pair["errors"] is not None and (pair["first"]["error"] is None or pair["second"]["error"] is None):
        raise ValueError("both ends of a line with errors must have an error, got null")
    return pair


class LineSettings(Part):
    """How a line was measured."""

    threshold: Share
    trained: NotRequired[bool]
    num_points: NotRequired[Count]
    recomputed_statistics: NotRequired[bool]


class Lines(Result):
    """What `compute_linear_connectivity` found: the error on the straight line between pairs of networks."""

    pairs: Annotated[list[Annotated[Pair, AfterValidator(_check_pair)]], Field(min_length=1)]
    settings: LineSettings
    instability: NotRequired[float | None]
    stable: NotRequired[bool | None]

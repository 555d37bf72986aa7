"""The types of what is said of weights and masks: scores, tickets, overlaps."""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import AfterValidator, Field

from statistical_report_generator.schemas.common import (
    Count,
    NotNegative,
    Part,
    Result,
    Share,
    Sparsities,
    need_lengths,
    need_same_keys,
)

Rows = list[list[float]]

FINEST: Final = "value"


def _check_heat_map(rows: Rows) -> Rows:
    for row in rows:
        need_lengths(len(rows[0]), **{"each row of a heat map": row})
    if not rows or not rows[0]:
        raise ValueError("a heat map must have a cell, got none; leave it out")
    return rows


class TensorSummary(Part):
    """A tensor's shape, and, when it has elements, its distribution, see `save_results` of `lottery_tickets`.

    Attributes:
        shape: Of the tensor.
        mean: Of its elements.
        std: Of its elements.
        quantiles: By the share of the elements that lie below, as a word.
        heat_map: Means of blocks, for two or more dimensions.
    """

    shape: list[Count]
    mean: NotRequired[float]
    std: NotRequired[NotNegative]
    quantiles: NotRequired[dict[str, float]]
    heat_map: NotRequired[Annotated[Rows, AfterValidator(_check_heat_map)]]


class SettlingStep(Part):
    """Attributes: num_samples: so far; changed: share of the mask that the last doubling changed."""

    num_samples: Count
    changed: Share


class ImportanceReport(Part):
    """How scores were computed.

    Attributes:
        score: The formula.
        num_samples: That they are averaged over.
        settled: Whether more samples would hardly change the mask; not there where it was not asked.
    """

    score: str
    num_samples: NotRequired[Count | None]
    num_nonfinite_samples: NotRequired[Count | None]
    num_clipped_samples: NotRequired[Count | None]
    precision: NotRequired[str | None]
    settled: NotRequired[bool | None]
    settling: NotRequired[list[SettlingStep] | None]


class Scores(Part):
    """Scores by parameter name, in summaries."""

    report: ImportanceReport
    scores: Annotated[dict[str, TensorSummary], Field(min_length=1)]
    standard_errors: NotRequired[dict[str, TensorSummary] | None]


class Importance(Result):
    """Scores of the weights, and the mask of the largest where one was made."""

    importance: Scores
    sparsity: NotRequired[Share | None]
    actual_sparsity: NotRequired[Share | None]
    scope: NotRequired[str | None]
    layer_sparsities: NotRequired[Sparsities | None]
    network: NotRequired[str]


class Ticket(Result):
    """A mask by layer, as of `compute_layerwise_magnitude_ticket`.

    Attributes:
        layer_sparsities: Share of each layer that is removed.
        actual_sparsity: Share of all weights that is removed.
        collapsed_layers: That keep nothing.
        thresholds: The least magnitude that each layer keeps; only of masks by magnitude.
    """

    layer_sparsities: Annotated[Sparsities, Field(min_length=1)]
    actual_sparsity: Share
    collapsed_layers: list[str]
    thresholds: NotRequired[dict[str, float | None]]
    mask: NotRequired[Any]
    target_sparsity: NotRequired[Share | None]
    network: NotRequired[str]


def check_ticket(ticket: Ticket) -> Ticket:
    """Returns a ticket whose thresholds and sparsities are of the same layers; raises ValueError otherwise."""
    if "thresholds" in ticket:
        need_same_keys(ticket["layer_sparsities"], ticket["thresholds"], "layer_sparsities and thresholds")
    return ticket


class LayerOverlap(Part):
    """The overlap of two masks in one layer, beside what chance gives."""

    overlap: Share
    expected: Share
    adjusted: float | None


class Null(Part):
    """The weights that two masks both keep, beside those that one kind of chance lets expect.

    Attributes:
        expected_both: On average.
        ratio: Of the number that both keep to that; None where none are expected.
        low: The lower end of its interval.
        high: The upper end.
        p_value: How often independent masks share as many or more.
    """

    expected_both: NotNegative
    ratio: NotNegative | None
    low: NotNegative | None
    high: NotNegative | None
    p_value: Share


class ExponentOverlap(Part):
    """The weights of one exponent that two masks keep."""

    exponent: int
    num_weights: Count
    num_kept: Annotated[list[Count], Field(min_length=2, max_length=2)]
    num_both: Count
    expected_both: NotNegative


def _check_nulls(nulls: dict[str, Null]) -> dict[str, Null]:
    if FINEST not in nulls:
        raise ValueError(f"nulls must have {FINEST!r}, which the verdict is on; was it edited?")
    for null in nulls.values():
        if (null["ratio"] is None) != (null["low"] is None) or (null["ratio"] is None) != (null["high"] is None):
            raise ValueError("a ratio must have both ends of its interval, and no interval a ratio")
    return nulls


class Given(Part):
    """What two masks share, given the weights that they were made of, see `compute_ticket_overlap`.

    Attributes:
        nulls: By name; "value" is the one that the verdict is on.
        verdict: Beyond, at or below chance.
        error_rate: How often independent masks are said to be beyond chance, and how often below it.
        by_exponent: In ascending order.
    """

    nulls: Annotated[dict[str, Null], AfterValidator(_check_nulls)]
    verdict: Literal["beyond chance", "at chance", "below chance"]
    error_rate: Share
    by_exponent: list[ExponentOverlap]


class GivenPair(Given):
    """The same of two of many masks, by their names."""

    first: str
    second: str


class Overlap(Result):
    """How much two masks have in common, see `compute_ticket_overlap`."""

    overall_overlap: Share
    expected_overlap: Share
    adjusted_overlap: float | None
    layer_overlaps: dict[str, LayerOverlap]
    method: str
    given: NotRequired[Given]


class OverlapMatrix(Result):
    """The overlaps of many masks, see `compute_overlap_matrix`; row i, column j is about masks i and j.

    Attributes:
        names: Of the masks.
        method: The coefficient.
        overlaps: Of each pair.
        expected: What unrelated masks of the same layer densities have.
        adjusted: Beyond chance; None where chance alone gives 1.
        densities: Of each mask.
        layer_sparsities: Of each mask, by layer.
        layers: Of the first two masks.
        pairs: What each pair shares, given the weights that the masks were made of.
    """

    names: Annotated[list[str], Field(min_length=1)]
    method: str
    overlaps: list[list[Share]]
    expected: list[list[Share]]
    adjusted: list[list[float | None]]
    densities: list[Share]
    layer_sparsities: NotRequired[list[Sparsities]]
    layers: NotRequired[dict[str, LayerOverlap]]
    pairs: NotRequired[list[GivenPair]]


def check_matrix(matrix: OverlapMatrix) -> OverlapMatrix:
    """Returns a matrix with a row and a column for each mask; raises ValueError otherwise."""
    num = len(matrix["names"])
    need_lengths(num, densities=matrix["densities"], layer_sparsities=matrix.get("layer_sparsities"))
    tables: dict[str, Any] = {
        name: value for name, value in matrix.items() if name in {"overlaps", "expected", "adjusted"}
    }
    for name, rows in tables.items():
        need_lengths(num, **{f"the rows of {name}": rows})
        for row in rows:
            need_lengths(num, **{f"each row of {name}": row})
    return matrix

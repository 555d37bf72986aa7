"""The types of what is said of changes: figures of each training, and what several have in common."""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field

from statistical_report_generator.schemas.common import Count, NotNegative, Part, Result, Share
from statistical_report_generator.schemas.masks import OverlapMatrix, check_matrix


class ExponentChanges(Part):
    """Attributes: exponent: of the weights before; num_weights: of it; num_changed: of these."""

    exponent: int
    num_weights: Count
    num_changed: Count


class ChangeFigures(Part):
    """What changed of some weights, see `compute_change_statistics`.

    Attributes:
        num_weights: How many there are.
        num_changed: How many are stored as another number.
        share_changed: Their share.
        num_sign_flips: How many went over zero.
        num_hidden: How many would be equal in bfloat16; None where they are stored in 16 bits.
        share_hidden: Their share of those that changed.
        norm: Of the change.
        largest_share: Of the squared norm in the largest 1 %; None where nothing changed.
        ulps: How many changed by 2^k up to 2^(k + 1) units in the last place, by k.
        sizes: How many changed by 2^k up to 2^(k + 1), by k.
        by_exponent: In ascending order.
    """

    num_weights: Count
    num_changed: Count
    share_changed: Share
    num_sign_flips: Count
    num_hidden: Count | None
    share_hidden: Share | None
    norm: NotNegative
    largest_share: NotNegative | None
    ulps: dict[str, Count]
    sizes: dict[str, Count]
    by_exponent: list[ExponentChanges]


class Update(Part):
    """What one training changed: of all weights, by kind of layer, by layer."""

    overall: ChangeFigures
    kinds: dict[str, ChangeFigures]
    layers: dict[str, ChangeFigures]
    dtypes: list[str]


class Changes(Result):
    """What trainings of one model changed, see `compute_changes`.

    Attributes:
        by: Which changes the masks keep.
        updates: By the name of the training.
        masks: Their files.
        overlaps: Of the masks; None where there is one.
    """

    by: str
    updates: Annotated[dict[str, Update], Field(min_length=1)]
    masks: NotRequired[Any]
    overlaps: Annotated[OverlapMatrix, AfterValidator(check_matrix)] | None

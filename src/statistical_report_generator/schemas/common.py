"""What the types of all kinds share: numbers with their ranges, where results are from, lists of one length."""

from collections.abc import Mapping, Sized
from typing import Annotated, Any, Final, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

# Strict: a word is no number, and True is not 1. Further keys are welcome: results grow.
CONFIG: Final = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

Share = Annotated[float, Field(ge=0, le=1)]
Sparsities = dict[str, Share]  # by layer
Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Position = Annotated[int, Field(ge=0)]


@with_config(CONFIG)
class Part(TypedDict):
    """What every object of a file is: the keys that are named must be there, others may."""


class Provenance(Part):
    """Where results are from; all of it is what the writer says.

    Attributes:
        started: When, as ISO 8601.
        wall_seconds: How long it took.
        command: That made them; None where a function was called.
        commit: Of the work tree that it was made in; None outside of one.
        settings: That were asked for.
        environment: Versions and machine.
        hardware: Processors, memory, accelerators.
    """

    started: NotRequired[str | None]
    wall_seconds: NotRequired[NotNegative | None]
    command: NotRequired[str | None]
    commit: NotRequired[str | None]
    settings: NotRequired[dict[str, Any] | None]
    environment: NotRequired[dict[str, Any] | None]
    hardware: NotRequired[dict[str, Any] | None]


class Result(Part):
    """What every file of results may say of itself.

    Attributes:
        schema: "lottery-tickets KIND VERSION".
        provenance: Where it is from.
    """

    schema: NotRequired[str]
    provenance: NotRequired[Provenance | None]


class MeanInterval(Part):
    """A mean over replicates with its 95 % interval; without ends for a single one."""

    mean: float
    low: float | None
    high: float | None


class Performance(Part):
    """How well a network does: mean loss, and where there are classes accuracy and perplexity."""

    loss: float | None
    accuracy: NotRequired[Share | None]
    perplexity: NotRequired[float | None]


def _check_interval(interval: MeanInterval) -> MeanInterval:
    low, mean, high = interval["low"], interval["mean"], interval["high"]
    if (low is None) != (high is None):
        raise ValueError("an interval must have both of its ends or none, got one")
    if low is not None and high is not None and not low <= mean <= high:
        raise ValueError(f"the mean must lie in its interval, got {mean:g} and [{low:g}, {high:g}]")
    return interval


Interval = Annotated[MeanInterval, AfterValidator(_check_interval)]


def need_lengths(expected: int, **lists: Sized | None) -> None:
    """Raises ValueError when a list is not as long as another says; None passes.

    Args:
        expected: How long.
        lists: By what they are called.
    """
    for name, values in lists.items():
        if values is not None and len(values) != expected:
            raise ValueError(f"{name} must have {expected} entries, as many as what they belong to, got {len(values)}")


def need_same_keys(first: Mapping[str, Any], second: Mapping[str, Any], names: str) -> None:
    """Raises ValueError when two objects are not about the same layers.

    Args:
        first: By layer.
        second: By layer.
        names: What they are called.
    """
    if odd := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"{names} must be about the same layers, but only one of them has {odd[0]!r}")

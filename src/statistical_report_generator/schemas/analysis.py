"""The type of a run of many analyses on one model: what was run, how long, what failed."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from statistical_report_generator.schemas.common import Count, NotNegative, Part, Result

Status = Literal["finished", "failed", "interrupted", "waiting"]


class Model(Part):
    """What was analysed."""

    name: NotRequired[str | None]
    num_parameters: NotRequired[Count | None]
    num_prunable: NotRequired[Count | None]
    num_layers: NotRequired[Count | None]


class Analysed(Part):
    """One analysis: its results lie in `file` beside this file, when it finished."""

    name: str
    kind: str
    status: Status
    file: str | None
    seconds: NotRequired[NotNegative | None]
    expected_seconds: NotRequired[NotNegative | None]
    error: NotRequired[str | None]
    title: NotRequired[str]
    conclusion: NotRequired[str]
    warnings: NotRequired[list[str]]


class Analysis(Result):
    """What the analyzer ran."""

    name: NotRequired[str]
    model: Model
    analyses: Annotated[list[Analysed], Field(min_length=1)]
    settings: NotRequired[dict[str, Any] | None]


def check_analysis(analysis: Analysis) -> Analysis:
    """Returns an analysis that names each of its parts and files once; raises ValueError otherwise."""
    for key in ("name", "file"):
        values = [str(one[key]) for one in analysis["analyses"] if one[key] is not None]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"the {key} of each analysis must be its own, but {twice[0]!r} is there twice")
    return analysis

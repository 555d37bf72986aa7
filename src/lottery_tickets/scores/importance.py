"""Importance: scores by parameter name, with how they were found."""

from collections.abc import Mapping
from typing import Any, TypedDict, final

from torch import Tensor

from lottery_tickets._core.encoding import Place, encode
from lottery_tickets._core.notebooks import render_table


class SettlingCheck(TypedDict):
    """One look at whether more samples still change the ranking."""

    num_samples: int
    changed: float


class ImportanceReport(TypedDict, total=False):
    """How scores were found; JSON-able.

    Attributes:
        score: The formula.
        sample: What one sample is, and its loss.
        num_samples: Samples seen.
        num_batches: Forward passes over batches.
        computed: "whole batches" or "one sample at a time".
        reason: Why one sample at a time, None otherwise.
        num_nonfinite_samples: Samples that were left out of at least one weight's mean.
        num_clipped_samples: Samples whose gradient was longer than `gradient_clip`.
        labels: Where labels come from.
        mode: The state of dropout and batch norm.
        precision: What the passes compute in; sums are float32 (float64 for float64 weights).
        settled: With "auto", whether the ranking had settled before the data ended.
        settling: With "auto", the looks at it.
    """

    score: str
    sample: str
    num_samples: int
    num_batches: int
    computed: str
    reason: str | None
    num_nonfinite_samples: int
    num_clipped_samples: int
    labels: str
    mode: str
    precision: str
    settled: bool
    settling: list[SettlingCheck]


@final
class Importance(dict[str, Tensor]):
    """Scores, float32, by parameter name in the parameters' shapes: a plain dict that also knows how it was found.

    Attributes:
        report: The formula, the samples and what happened on the way.
        output_dims: For each name the dimensions that number the outputs; scope "row" compares within one output.
        standard_errors: Of each score, when asked for.
    """

    def __init__(
        self,
        scores: Mapping[str, Tensor],
        report: ImportanceReport,
        *,
        output_dims: Mapping[str, tuple[int, ...]],
        standard_errors: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(scores)
        self.report = report
        self.output_dims = dict(output_dims)
        self.standard_errors = None if standard_errors is None else dict(standard_errors)

    def to_results(self) -> dict[str, Any]:
        """Returns what reports tell of the scores, JSON-able: how they were found, and a summary of each tensor.

        Raises:
            ValueError: When a score is not finite.
        """
        return {"importance": encode(self, Place("", "importance", {}))}

    def __repr__(self) -> str:
        num_scores = f"{len(self)} parameters, {sum(scores.numel() for scores in self.values()):,} scores"
        how = (f"{name} {self.report[name]!r}" for name in ("score", "num_samples", "labels") if name in self.report)
        return f"Importance({', '.join([num_scores, *how])})"

    def _repr_html_(self) -> str:
        rows = ((name, "x".join(map(str, scores.shape)), f"{scores.numel():,}") for name, scores in self.items())
        return render_table(repr(self), ("parameter", "shape", "scores"), rows, len(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns what pickle and copy need to make it anew."""
        return _rebuild, (dict(self), self.report, self.output_dims, self.standard_errors)


def _rebuild(
    scores: dict[str, Tensor],
    report: ImportanceReport,
    output_dims: dict[str, tuple[int, ...]],
    standard_errors: dict[str, Tensor] | None,
) -> Importance:
    return Importance(scores, report, output_dims=output_dims, standard_errors=standard_errors)


@encode.register
def _(importance: Importance, place: Place) -> Any:  # noqa: ANN401 - JSON is anything
    parts: dict[str, Any] = {"report": importance.report, "scores": dict(importance)}
    errors = importance.standard_errors
    return encode(parts if errors is None else parts | {"standard_errors": errors}, place)

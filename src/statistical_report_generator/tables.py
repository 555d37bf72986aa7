"""Intervals as text, and for the terminal the summaries of an experiment, and costs, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from statistical_report_generator.inference.intervals import BranchSummary, Interval, read_interval
from statistical_report_generator.rows import format_rows

POINTS: Final = 100.0
COSTS: Final = {
    "parameters": "parameters",
    "memory_bytes": "bytes in memory",
    "disk_bytes": "bytes on disk",
    "forward_flops": "FLOPs of a forward pass",
    "step_flops": "FLOPs of a training step",
}


def format_interval(interval: Interval | Mapping[str, Any], *, scale: float = POINTS, form: str = ".2f") -> str:
    """Returns a mean with its interval, such as "98.31 [98.02, 98.60]"; the mean alone where one replicate gives none.

    Args:
        interval: An `Interval`, or its dict.
        scale: What all three numbers are multiplied by; the default turns a fraction into percent.
        form: A format of numbers; "+.2f" shows the sign of a difference.
    """
    mean, low, high = read_interval(interval)
    if low is None or high is None:
        return f"{scale * mean:{form}}"
    return f"{scale * mean:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def make_headings(metric: str = "test_accuracy") -> tuple[str, ...]:
    """Returns the headings of the table.

    Args:
        metric: What is in it, as `choose_figures` returns it.

    Examples:
        >>> make_headings("train_loss")
        ('density', 'branch', 'train loss', 'minus dense', 'taken at step')
    """
    words = metric.replace("_", " ")
    of_metric = (f"{words} %", "minus dense, points") if metric.endswith("accuracy") else (words, "minus dense")
    return ("density", "branch", *of_metric, "taken at step")


def make_rows(summaries: Sequence[BranchSummary], metric: str = "test_accuracy") -> list[tuple[str, ...]]:
    """Returns the cells of the table, one row a summary; accuracies in percent, all else in its own units."""
    scale, form = (POINTS, ".2f") if metric.endswith("accuracy") else (1.0, ".4g")
    return [
        (
            f"{POINTS * summary.density:.1f} %",
            "dense" if summary.level == 0 else summary.branch,
            format_interval(summary.value, scale=scale, form=form),
            "" if summary.level == 0 else format_interval(summary.minus_dense, scale=scale, form=f"+{form}"),
            f"{summary.step.mean:,.0f}",
        )
        for summary in summaries
    ]


def format_table(
    summaries: Sequence[BranchSummary],
    verdicts: Mapping[tuple[int, str], tuple[str, str]] | None = None,
    metric: str = "test_accuracy",
) -> str:
    """Returns the summaries of an experiment as a table for the terminal, less than 100 columns wide.

    Args:
        summaries: One a level and branch.
        verdicts: By level and branch, such as `list_verdicts` returns; they stand in the place of the step at which
            accuracy was taken.
        metric: What they are of, as `choose_figures` returns it.
    """
    rows = [make_headings(metric), *make_rows(summaries, metric)]
    if verdicts is not None:
        cells = [verdicts.get((summary.level, summary.branch), ("", "")) for summary in summaries]
        rows = [row[:-1] + added for row, added in zip(rows, [("verdict", ""), *cells], strict=True)]
    return format_rows(rows, align="<", rule=True)


def format_costs(costs: Mapping[str, Any]) -> str:
    """Returns what a network costs in each form as a table for the terminal.

    Args:
        costs: As `compute_costs` returns them.
    """
    forms = [form for form in ("dense", "masked", "shrunk") if form in costs]
    rows = [(words, *(f"{costs[form][key]:,}" for form in forms)) for key, words in COSTS.items()]
    lines = [
        f"with a batch of {costs['num_samples']:,}; masked: if pruned weights were skipped, which PyTorch does not do"
    ]
    lines.append(format_rows([("", *forms), *rows]))
    if "no_units" in costs:
        lines.append(f"not shrunk: {costs['no_units']}")
    return "\n".join(lines)

"""The sections on linear mode connectivity: from which step on is training stable to its own noise."""

from collections.abc import Mapping
from typing import Any

from statistical_report_generator.document import Figure, Points, Section, Table, Verdicts, VerdictWord
from statistical_report_generator.figures.connectivity import draw_instability
from statistical_report_generator.inference.intervals import read_interval
from statistical_report_generator.sections.threats import FEW
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS, format_interval

Row = Mapping[str, Any]

HEADINGS = ("step", "network", "instability, points", "stable pairs", "loss barrier", "accuracy, %")


def describe_connectivity(source: Source) -> list[Section]:
    """Returns the sections on pairs of trainings that part at chosen steps.

    Args:
        source: What `lottery-tickets connectivity --rewind-steps` saved.
    """
    rows, threshold = source.results["rows"], float(source.results["settings"]["threshold"])
    verdicts = tuple(_judge(row, threshold) for row in rows)
    return [
        Section("What was found", [Verdicts(verdicts), _draw(source, rows, threshold)]),
        Section("By step and network", [_tabulate(source, rows)]),
        Section("Threats to validity", [Points(tuple(_list_threats(source, rows)))]),
    ]


def _judge(row: Row, threshold: float) -> tuple[VerdictWord, str]:
    """Returns the verdict on one step: stable or unstable where the whole interval lies on one side."""
    _, low, high = read_interval(row["instability"])
    word: VerdictWord = "undecided"
    if low is not None and high is not None:
        word = "stable" if high < threshold else "unstable" if low > threshold else "undecided"
    instability = format_interval(row["instability"])
    return word, (
        f"{row['network']}, from step {row['step']:,} on: instability {instability} points of error, "
        f"{row['num_stable']} of {row['num_pairs']} pairs below {POINTS * threshold:g}."
    )


def _draw(source: Source, rows: list[Row], threshold: float) -> Figure:
    last = rows[-1]
    return Figure(
        name=f"{source.slug}-instability",
        caption="Instability, the largest error on the line between two trained copies minus the mean of their errors, "
        f"over the step at which the copies part. Mean of {last['num_pairs']} pairs, bars are 95 % intervals.",
        alternative=f"At step {last['step']:,} the instability of the {last['network']} network is "
        f"{format_interval(last['instability'])} points of error; below {POINTS * threshold:g} counts as stable.",
        draw=lambda: draw_instability({source.name: rows}, threshold),
    )


def _tabulate(source: Source, rows: list[Row]) -> Table:
    cells = tuple(
        (
            str(row["step"]),
            str(row["network"]),
            format_interval(row["instability"]),
            f"{row['num_stable']} of {row['num_pairs']}",
            "" if row["barrier"] is None else format_interval(row["barrier"], scale=1, form=".3f"),
            format_interval(row["accuracy"]),
        )
        for row in rows
    )
    caption = "Means over pairs with 95 % intervals; accuracy is the mean of both ends."
    return Table(f"{source.slug}-steps", caption, HEADINGS, cells, frozenset({0, 2, 4, 5}))


def _list_threats(source: Source, rows: list[Row]) -> list[str]:
    num = min(int(row["num_pairs"]) for row in rows)
    threats = [f"Only {num} pairs: intervals are wide."] if num < FEW else []
    return [
        *threats,
        *(str(finding) for finding in source.results.get("findings", [])),
        "Stable is not good: two copies that hardly learn are connected too. Read it beside the accuracy.",
        "The trainings were not re-checked when this report was made: lottery-tickets verify does.",
    ]

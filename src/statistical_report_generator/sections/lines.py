"""The sections on lines between pairs of networks."""

from typing import Final

from statistical_report_generator.document import ConnectivityWord, Figure, Points, Section, Table, Verdicts
from statistical_report_generator.figures.connectivity import draw_error_path
from statistical_report_generator.schemas.experiments import Lines, Pair
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.threats import FEW
from statistical_report_generator.sections.words import MOST_ROWS, form, make_table, percent
from statistical_report_generator.sources import Source

MOST_DRAWN: Final = 12
HEADINGS: Final = (
    *("pair", "instability, points of error", "error at the first end, %", "error at the second end, %"),
    *("loss barrier", "loss at the first end", "loss at the second end"),
)


def describe_lines(source: Source) -> list[Section]:
    """Returns the sections on the straight lines between networks.

    Args:
        source: What `compute_linear_connectivity` saved.
    """
    found: Lines = source.results
    threshold = found["settings"]["threshold"]
    verdicts = tuple(_judge(number, pair, threshold) for number, pair in enumerate(found["pairs"][:MOST_ROWS]))
    return [
        Section("What was found", [Verdicts(verdicts), _draw(source, found)]),
        Section("By pair", [_tabulate(source, found["pairs"])]),
        describe_making(source, found["settings"]),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _judge(number: int, pair: Pair, threshold: float) -> tuple[ConnectivityWord, str]:
    limit = f"below {percent(threshold, '.3g')} counts as stable"
    if pair["instability"] is None:
        return "undecided", f"Pair {number}: there is no accuracy; loss barrier {form(pair['barrier'])}."
    word: ConnectivityWord = "stable" if pair["instability"] < threshold else "unstable"
    return word, f"Pair {number}: instability {percent(pair['instability'])} points of error; {limit}."


def _draw(source: Source, found: Lines) -> Figure:
    pairs = found["pairs"]
    first = pairs[0]
    instability = (
        f"its loss barrier is {form(first['barrier'])}"
        if first["instability"] is None
        else f"its instability is {percent(first['instability'])} points of error"
    )
    shown = f" The first {MOST_DRAWN} of {len(pairs):,} pairs." if len(pairs) > MOST_DRAWN else ""
    return Figure(
        name=f"{source.slug}-lines",
        caption="The error on the straight line between two networks, or the loss where there is no accuracy; gaps are "
        f"not finite. One line a pair, {len(pairs):,} in all, without intervals.{shown}",
        alternative=f"The line of the first of {len(pairs):,} pairs has {len(first['alphas'])} points; {instability}.",
        draw=lambda: draw_error_path({**found, "pairs": pairs[:MOST_DRAWN]}, source.name),
    )


def _tabulate(source: Source, pairs: list[Pair]) -> Table:
    rows = [
        (
            str(number),
            percent(pair["instability"], missing="no accuracy"),
            percent(pair["first"]["error"], missing="no accuracy"),
            percent(pair["second"]["error"], missing="no accuracy"),
            form(pair["barrier"]),
            form(pair["first"]["loss"]),
            form(pair["second"]["loss"]),
        )
        for number, pair in enumerate(pairs[:MOST_ROWS])
    ]
    left_out = f"The first {MOST_ROWS} of {len(pairs):,} pairs." if len(pairs) > MOST_ROWS else ""
    caption = "Instability is the largest error on the line minus the mean of the errors of its ends."
    return make_table(f"{source.slug}-pairs", caption, HEADINGS, rows, words=(), left_out=left_out)


def _list_threats(source: Source, found: Lines) -> list[str]:
    num, settings = len(found["pairs"]), found["settings"]
    threats = [f"Only {num} {'pair' if num == 1 else 'pairs'}: another may differ."] if num < FEW else []
    if settings.get("trained") is False:
        threats.append(
            "The networks were handed in: what they share, such as a start or an order of the data, is not known here."
        )
    if num_nonfinite := sum(pair.get("num_nonfinite", 0) for pair in found["pairs"]):
        threats.append(f"{num_nonfinite:,} points on the lines are not finite; each counts as an error of 100 %.")
    if settings.get("recomputed_statistics"):
        threats.append("Running statistics of batch norm were computed anew at each point: another choice moves it.")
    return [
        *threats,
        "Stable is not good: two copies that hardly learn are connected too. Read it beside the errors of the ends.",
        *list_unknown(source),
    ]

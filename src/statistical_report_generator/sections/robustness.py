"""The sections on a trained network at growing sparsities, not retrained."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from statistical_report_generator.document import Figure, Points, Section, Table, Verdicts
from statistical_report_generator.figures.robustness import FIGURES, draw_robustness, find_figure
from statistical_report_generator.schemas.performance import Robustness, RobustnessPoint
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.layers import MISSED
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import (
    MOST_ROWS,
    count,
    figure_of,
    form,
    make_table,
    percent,
)
from statistical_report_generator.sources import Source

FEW_PREDICTIONS: Final = 1000
# The key promises a winning ticket, which nothing here has shown.
SUMS: Final = (
    ("winning_ticket_score", "mean gain over random masks, nothing trained", "not known"),
    ("optimal_sparsity", "sparsity up to which the performance is kept, %", ""),
    ("critical_sparsity", "sparsity at which the critical share is lost, %", "not reached"),
)


def describe_robustness(source: Source) -> list[Section]:
    """Returns the sections on how much pruning a trained network bears.

    Args:
        source: What `compute_pruning_robustness` saved.
    """
    found: Robustness = source.results
    return [
        Section("What was found", [Verdicts((("post-hoc", _answer(found)),)), _draw(source, found)]),
        Section("By sparsity", [_tabulate(source, found), _sum_up(source, found)]),
        describe_making(source, {"metric": found["metric"], **(found.get("settings") or {})}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _answer(found: Robustness) -> str:
    metrics, settings = found["robustness_metrics"], found.get("settings", {})
    tolerance, critical = settings.get("tolerance", 0.05), settings.get("critical_retention", 0.5)
    kept = f"at least {percent(1 - tolerance, '.3g')} % of its {found['metric']}"
    words = f"Pruned by magnitude and not retrained, the network keeps {kept} up to sparsity "
    words += f"{percent(metrics['optimal_sparsity'], '.3g')} %"
    where = percent(metrics["critical_sparsity"], ".3g", "")
    words += f", and less than {percent(critical, '.3g')} % "
    words += f"from {where} % on" if where else "nowhere within the levels"
    if metrics["winning_ticket_score"] is not None:
        gain = percent(metrics["winning_ticket_score"], ".1f")
        words += f"; on average over the levels {gain} points more than random masks"
    return f"{words}."


def _draw(source: Source, found: Robustness) -> Figure:
    curves = found["sparsity_curves"]
    _name, points = next(iter(curves.items()))
    last = points[-1]
    what = find_figure(found["metric"], points)
    values = ", ".join(
        f"{name}: {figure_of(what, one[-1].get(what))}"  # type: ignore[arg-type]  # a figure
        for name, one in curves.items()
    )
    return Figure(
        name=f"{source.slug}-robustness",
        caption="Performance of the network as it is, pruned by magnitude and at random, over sparsity. One "
        "measurement a point on one batch, n = 1, without intervals; gaps are not finite.",
        alternative=f"At sparsity {percent(last['sparsity'], '.3g')} %, not retrained, {what} is {values}.",
        draw=lambda: draw_robustness(found, source.name),
    )


def _tabulate(source: Source, found: Robustness) -> Table:
    curves = found["sparsity_curves"]
    shown = [
        what
        for what in (*FIGURES, "retention")
        if any(point.get(what) is not None for points in curves.values() for point in points)
    ]
    rows = [
        (
            name,
            percent(point["sparsity"], ".4g"),
            percent(point["actual_sparsity"], ".4g"),
            *(
                (percent if what in ("accuracy", "retention") else form)(point.get(what))  # type: ignore[arg-type]  # figures
                for what in shown
            ),
        )
        for name, points in curves.items()
        for point in points
    ]
    units = {"accuracy": "accuracy, %", "retention": "kept, %"}
    headings = ("mask", "sparsity asked, %", "sparsity, %", *(units.get(what, what) for what in shown))
    left_out = f"The first {MOST_ROWS} of {len(rows):,} points." if len(rows) > MOST_ROWS else ""
    caption = "The network at each sparsity, not retrained; one measurement each."
    table = make_table(f"{source.slug}-sparsities", caption, headings, rows[:MOST_ROWS], left_out=left_out)
    points = [point for points in curves.values() for point in points][:MOST_ROWS]
    return add_costs(table, source, (point.get("layer_sparsities") for point in points))


def _sum_up(source: Source, found: Robustness) -> Table:
    metrics = found["robustness_metrics"]
    rows = []
    for key, label, missing in SUMS:
        value: float | None = metrics.get(key)  # type: ignore[assignment]  # a number by its type
        rows.append((label, percent(value, ".3g", missing) if label.endswith("%") else form(value, ".4g", missing)))
    return make_table(f"{source.slug}-sums", "What sums the curves up.", ("figure", "value"), rows)


def _list_threats(source: Source, found: Robustness) -> list[str]:
    curves = found["sparsity_curves"]
    threats = [
        "Post-hoc: nothing was retrained, so this says nothing about winning tickets.",
        "One batch: figures are as noisy as it is small, and others may differ.",
    ]
    baseline: Mapping[str, Any] = found.get("settings", {}).get("baseline") or {}  # with further keys
    num = baseline.get("num_predictions")
    if isinstance(num, int) and num < FEW_PREDICTIONS:
        threats.append(f"That batch has {count(num)} predictions.")
    if "random" in curves:
        threats.append("Random masks were drawn once: another draw gives another curve, and no interval is known.")
    else:
        threats.append("No random masks were measured beside: it is not known what chance keeps.")
    return [
        *threats,
        *list_odd_points([point for points in curves.values() for point in points]),
        *list_unknown(source),
    ]


def list_odd_points(points: Sequence[RobustnessPoint]) -> list[str]:
    """Returns sentences on points whose loss is not finite, and on sparsities that were missed.

    Args:
        points: Of any curve.
    """
    threats = []
    if odd := sum(point["loss"] is None for point in points):
        threats.append(f"At {count(odd)} of {count(len(points))} points the loss is not finite.")
    missed = [point for point in points if abs(point["sparsity"] - point["actual_sparsity"]) > MISSED]
    if missed:
        worst = max(missed, key=lambda point: abs(point["sparsity"] - point["actual_sparsity"]))
        threats.append(
            f"Sparsity missed at {count(len(missed))} points: at worst {percent(worst['sparsity'], '.4g')} % was asked "
            f"for, and {percent(worst['actual_sparsity'], '.4g')} % was removed."
        )
    return threats

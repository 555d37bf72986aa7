"""The sections on a trained network pruned by several scores, not retrained."""

import math
from collections.abc import Mapping
from typing import Any, Final

from statistical_report_generator.document import Block, Figure, Points, Section, Table, Verdicts
from statistical_report_generator.figures.robustness import FIGURES, draw_strategies, find_figure
from statistical_report_generator.schemas.performance import Strategies, StrategyRow
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.robustness import list_odd_points
from statistical_report_generator.sections.words import (
    MOST_ROWS,
    count,
    figure_of,
    form,
    make_table,
    name_cell,
    percent,
)
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS

LESS_IS_BETTER: Final = ("loss", "perplexity")
NORMAL: Final = 1.96


def describe_strategies(source: Source) -> list[Section]:
    """Returns the sections on which score keeps most of a network.

    Args:
        source: What the analyzer saved of several scores.
    """
    found: Strategies = source.results
    blocks: list[Block] = [Verdicts(tuple(("post-hoc", words) for words in _answer(found))), _draw(source, found)]
    return [
        Section("What was found", blocks),
        Section("By strategy and sparsity", [_tabulate(source, found)]),
        describe_making(source, {"metric": found["metric"], **(found.get("settings") or {})}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _rank(rows: list[StrategyRow], what: str) -> list[tuple[float, StrategyRow]]:
    known = [(row.get(what), row) for row in rows]
    values = [(float(value), row) for value, row in known if value is not None]  # type: ignore[arg-type]  # numbers
    return sorted(values, key=lambda pair: pair[0], reverse=what not in LESS_IS_BETTER)


def _answer(found: Strategies) -> list[str]:
    """Returns a sentence on the sparsest levels: which strategy does best and which worst there."""
    what, answers = find_figure(found["metric"], found["rows"]), []
    for sparsity in sorted({row["sparsity"] for row in found["rows"]})[-3:]:
        ranked = _rank([row for row in found["rows"] if row["sparsity"] == sparsity], what)
        level = f"At sparsity {percent(sparsity, '.4g')} %, not retrained,"
        if not ranked:
            answers.append(f"{level} no strategy has a finite {what}.")
            continue
        (best, first), (worst, last) = ranked[0], ranked[-1]
        words = f"{level} {name_cell(first['strategy'])} has the best {what}, {figure_of(what, best)}"
        words += f", and {name_cell(last['strategy'])} the worst, {figure_of(what, worst)}" if len(ranked) > 1 else ""
        answers.append(f"{words}; without pruning it is {figure_of(what, found['baseline'].get(what))}.")  # type: ignore[arg-type]  # a number
    return answers


def _draw(source: Source, found: Strategies) -> Figure:
    strategies = list(dict.fromkeys(row["strategy"] for row in found["rows"]))
    num = find_num_samples(found)
    return Figure(
        name=f"{source.slug}-strategies",
        caption="Performance of the network as it is, pruned by several scores, over sparsity. One measurement a "
        f"point, n = 1{'' if num is None else f', on {count(num)} samples'}, without intervals; gaps are not finite.",
        alternative=_answer(found)[-1],
        draw=lambda: draw_strategies(
            {**found, "rows": [row for row in found["rows"] if row["strategy"] in strategies[:20]]}, source.name
        ),
    )


def _tabulate(source: Source, found: Strategies) -> Table:
    shown = [what for what in (*FIGURES, "retention") if any(row.get(what) is not None for row in found["rows"])]
    rows = [
        (
            name_cell(row["strategy"]),
            percent(row["sparsity"], ".4g"),
            percent(row["actual_sparsity"], ".4g"),
            *(
                (percent if what in ("accuracy", "retention") else form)(row.get(what))  # type: ignore[arg-type]  # figures
                for what in shown
            ),
        )
        for row in found["rows"][:MOST_ROWS]
    ]
    units = {"accuracy": "accuracy, %", "retention": "kept, %"}
    headings = ("strategy", "sparsity asked, %", "sparsity, %", *(units.get(what, what) for what in shown))
    num = len(found["rows"])
    left_out = f"The first {MOST_ROWS} of {num:,} rows." if num > MOST_ROWS else ""
    caption = "The network pruned by each score, not retrained; one measurement each."
    table = make_table(f"{source.slug}-by-strategy", caption, headings, rows, left_out=left_out)
    return add_costs(table, source, (row.get("layer_sparsities") for row in found["rows"][:MOST_ROWS]))


def _list_threats(source: Source, found: Strategies) -> list[str]:
    names = {row["strategy"].lower() for row in found["rows"]}
    threats = ["Post-hoc: nothing was retrained, and the best score here need not find the best ticket."]
    if "random" not in names:
        threats.append("No random mask was measured beside: it is not known what chance keeps.")
    else:
        threats.append("Random masks were drawn once: another draw gives another line.")
    num, accuracy = find_num_samples(found), found["baseline"].get("accuracy")
    if num is None:
        threats.append("It is not known on how many samples this was measured.")
    elif num and found["metric"] == "accuracy" and accuracy is not None:
        within = NORMAL * math.sqrt(0.25 / num)
        threats.append(
            f"On {count(num)} samples chance moves an accuracy by up to {POINTS * within:.2g} points (95 %, at 50 %): "
            "smaller differences between strategies are not shown."
        )
    threats.append("Scores and their figures may come from the same data: then both are fitted to it.")
    return [*threats, *list_odd_points(found["rows"]), *list_unknown(source)]


def find_num_samples(found: Strategies) -> int | None:
    """Returns how many predictions, or samples, performance was measured on; None where it is not known.

    Args:
        found: The results.
    """
    baseline: Mapping[str, Any] = found["baseline"]  # with further keys than those that must be there
    predictions = baseline.get("num_predictions")
    is_count = isinstance(predictions, int) and not isinstance(predictions, bool) and predictions >= 0
    return predictions if is_count else found.get("num_samples")

"""The sections on several runs beside each other: what each shows, in one figure and one table."""

from collections.abc import Sequence
from typing import Final

from statistical_report_generator.document import Block, Figure, Section, Table
from statistical_report_generator.figures.comparison import draw_comparison
from statistical_report_generator.figures.robustness import draw_retentions
from statistical_report_generator.inference.intervals import BranchSummary
from statistical_report_generator.sections.experiment import ExperimentOptions, judge_experiment
from statistical_report_generator.sections.words import make_table, name_cell, percent
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS, format_interval

FEWEST: Final = 2
MOST_DRAWN: Final = 12
HEADINGS: Final = ("run", "weights left, %", "ticket", "minus dense", "replicates", "verdict")


def describe_comparison(sources: Sequence[Source], options: ExperimentOptions) -> list[Section]:
    """Returns the section on all experiments, and all robustnesses, beside each other; none where there is one alone.

    Args:
        sources: All results of a report.
        options: How experiments are judged.
    """
    experiments = [one for one in sources if one.kind == "experiment" and not one.results.get("simulated")]
    networks = [one for one in sources if one.kind == "robustness" and "magnitude" in one.results["sparsity_curves"]]
    blocks: list[Block] = []
    if len(experiments) >= FEWEST:
        blocks += _compare_experiments(experiments, options)
    if len(networks) >= FEWEST:
        blocks.append(_draw_networks(networks[:MOST_DRAWN], len(networks)))
    return [Section("Runs beside each other", blocks, leads=True)] if blocks else []


def _compare_experiments(experiments: Sequence[Source], options: ExperimentOptions) -> list[Block]:
    rows: list[tuple[str, ...]] = []
    runs: dict[str, dict[str, list[BranchSummary]]] = {}
    for source in experiments:
        claims, summaries = judge_experiment(source, options)
        verdicts = {level["level"]: level["winning"] or level["verdict"] for level in claims["levels"]}
        is_share = claims["metric"].endswith("accuracy")
        scale, form = (POINTS, ".2f") if is_share else (1.0, ".4g")
        runs.setdefault(claims["metric"], {})[source.name] = summaries
        rows += [
            (
                name_cell(source.name),
                f"{POINTS * one.density:.2f}",
                format_interval(one.value, scale=scale, form=form),
                format_interval(one.minus_dense, scale=scale, form=f"+{form[1:]}" if is_share else "+.4g"),
                str(one.value.num_replicates),
                verdicts.get(one.level, "dense"),
            )
            for one in summaries
            if one.branch == "ticket"
        ]
    caption = "Tickets of all runs, means with 95 % intervals; single runs are in the tables of each."
    table: Table = make_table("comparison", caption, HEADINGS, rows, words=(0, 5))
    return [*(_draw_experiments(metric, found) for metric, found in runs.items() if len(found) >= FEWEST), table]


def _draw_experiments(metric: str, runs: dict[str, list[BranchSummary]]) -> Figure:
    is_share = metric.endswith("accuracy")
    words, shown = metric.replace("_", " "), dict(list(runs.items())[:MOST_DRAWN])
    rest = f" The first {MOST_DRAWN} of {len(runs):,} runs." if len(shown) < len(runs) else ""
    last = {name: summaries[-1] for name, summaries in shown.items()}
    best = max(last, key=lambda name: last[name].value.mean)
    return Figure(
        name=f"comparison-{metric.replace('_', '-')}",
        caption=f"The {words} of the tickets of {len(shown)} runs over the share of weights that are left; means, bars "
        f"are 95 % Student t intervals.{rest}",
        alternative=f"Of {len(runs):,} runs {name_cell(best)} has the largest mean {words} at its last level.",
        draw=lambda: draw_comparison(shown, f"{words}, %" if is_share else words, POINTS if is_share else 1.0),
    )


def _draw_networks(networks: Sequence[Source], num: int) -> Figure:
    points = {one.name: one.results["sparsity_curves"]["magnitude"] for one in networks}
    kept = {name: found[-1]["retention"] for name, found in points.items()}
    known = {name: share for name, share in kept.items() if share is not None}
    most = max(known, key=known.__getitem__) if known else None
    ends = "" if most is None else f" {name_cell(most)} keeps most at its last level, {percent(known[most], '.1f')} %."
    rest = f" The first {len(networks)} of {num:,}." if len(networks) < num else ""
    return Figure(
        name="comparison-robustness",
        caption="What each network keeps of its own performance, pruned by magnitude, not retrained; one measurement a "
        f"point.{rest}",
        alternative=f"{num:,} networks pruned to growing sparsities.{ends}",
        draw=lambda: draw_retentions(points),
    )

"""The sections on several runs beside each other: what each shows, in one figure and one table."""

from collections.abc import Mapping, Sequence
from typing import Final

from statistical_report_generator.document import Block, Figure, Section, Table
from statistical_report_generator.figures.comparison import draw_comparison
from statistical_report_generator.figures.robustness import draw_retentions
from statistical_report_generator.inference.intervals import BranchSummary, collect_densities, collect_values
from statistical_report_generator.schemas.performance import RobustnessPoint, StrategyRow
from statistical_report_generator.sections.experiment import ExperimentOptions, judge_experiment
from statistical_report_generator.sections.words import MOST_ROWS, make_table, name_cell, percent
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS, format_interval

FEWEST: Final = 2
MOST_DRAWN: Final = 12
MOST_COLUMNS: Final = 30
HEADINGS: Final = ("run", "weights left, %", "ticket", "minus dense", "replicates", "verdict")

Kept = RobustnessPoint | StrategyRow


def describe_comparison(sources: Sequence[Source], options: ExperimentOptions) -> list[Section]:
    """Returns the section on all experiments, robustnesses and strategies beside each other; none for one alone.

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
        blocks += _compare_networks({one.name: one.results["sparsity_curves"]["magnitude"] for one in networks})
    blocks += _compare_strategies([one for one in sources if one.kind == "strategies"])
    return [Section("Runs beside each other", blocks, leads=True)] if blocks else []


def _compare_experiments(experiments: Sequence[Source], options: ExperimentOptions) -> list[Block]:
    rows: list[tuple[str, ...]] = []
    runs: dict[str, dict[str, list[BranchSummary]]] = {}
    moments: dict[str, tuple[str, str]] = {}
    for source in experiments:
        claims, summaries = judge_experiment(source, options)
        verdicts = {level["level"]: level["winning"] or level["verdict"] for level in claims["levels"]}
        is_share = claims["metric"].endswith("accuracy")
        scale, form = (POINTS, ".2f") if is_share else (1.0, ".4g")
        runs.setdefault(claims["metric"], {})[source.name] = summaries
        moments[source.name] = claims["metric"], claims["moment"]
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
    caption = "Tickets of all runs, means over replicates with 95 % Student t intervals; no test between runs is made."
    table = make_table("comparison", caption, HEADINGS, rows, words=(0, 5))
    figures = [_draw_experiments(metric, found) for metric, found in runs.items() if len(found) >= FEWEST]
    return [*figures, table, _tabulate_runs(experiments, moments)]


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


def _compare_networks(runs: Mapping[str, Sequence[RobustnessPoint]]) -> list[Block]:
    """Returns the figure of what several networks keep, and its values."""
    shown = dict(list(runs.items())[:MOST_DRAWN])
    kept = {name: found[-1]["retention"] for name, found in shown.items()}
    known = {name: share for name, share in kept.items() if share is not None}
    most = max(known, key=known.__getitem__) if known else None
    ends = "" if most is None else f" {name_cell(most)} keeps most at its last level, {percent(known[most], '.1f')} %."
    rest = f" The first {len(shown)} of {len(runs):,}." if len(shown) < len(runs) else ""
    figure = Figure(
        name="comparison-robustness",
        caption="What each network keeps of its own performance, pruned by magnitude, not retrained; one measurement a "
        f"point.{rest}",
        alternative=f"{len(runs):,} networks pruned to growing sparsities.{ends}",
        draw=lambda: draw_retentions(shown),
    )
    return [figure, _tabulate_kept("comparison-kept", "pruned by magnitude", {(run,): runs[run] for run in runs})]


def _compare_strategies(sources: Sequence[Source]) -> list[Block]:
    """Returns the table of what several networks keep, pruned by the strategies that more than one of them has."""
    by_strategy: dict[str, dict[str, list[StrategyRow]]] = {}
    for source in sources:
        for row in source.results["rows"]:
            by_strategy.setdefault(row["strategy"], {}).setdefault(source.name, []).append(row)
    several = {name: runs for name, runs in by_strategy.items() if len(runs) >= FEWEST}
    if not several:
        return []
    kept: dict[tuple[str, ...], list[StrategyRow]] = {
        (run, name): rows for name, runs in several.items() for run, rows in runs.items()
    }
    return [_tabulate_kept("comparison-strategies", "pruned by each strategy", kept)]


def _tabulate_kept(name: str, how: str, kept: Mapping[tuple[str, ...], Sequence[Kept]]) -> Table:
    """Returns the table of what each network keeps, a row a curve and a column a sparsity.

    Args:
        name: Of its file.
        how: Networks were pruned.
        kept: By run, or by run and strategy, the points of a curve.
    """
    sparsities = sorted({point["sparsity"] for points in kept.values() for point in points})[:MOST_COLUMNS]
    rows = []
    for names, points in list(kept.items())[:MOST_ROWS]:
        by_sparsity = {point["sparsity"]: point["retention"] for point in points}
        cells = (percent(by_sparsity[one], ".1f", "no ratio") if one in by_sparsity else "" for one in sparsities)
        rows.append((*map(name_cell, names), *cells))
    words = ("run", "strategy")[: len(next(iter(kept)))]
    headings = (*words, *(f"at {percent(one, '.4g')} %" for one in sparsities))
    caption = f"Performance kept, % of each network's own, {how}, by sparsity."
    left_out = f"The first {MOST_ROWS} of {len(kept):,} rows." if len(kept) > MOST_ROWS else ""
    return make_table(name, caption, headings, rows, words=range(len(words)), left_out=left_out)


def _tabulate_runs(experiments: Sequence[Source], moments: Mapping[str, tuple[str, str]]) -> Table:
    """Returns the table of single runs: what the means beside each other are of.

    Args:
        experiments: All.
        moments: By name the metric and the moment that an experiment is judged by.
    """
    values = {one.name: collect_values(one.results, moments[one.name][1], moments[one.name][0]) for one in experiments}
    replicates = sorted({one for found in values.values() for runs in found.values() for one in runs})[:MOST_COLUMNS]
    rows = []
    for source in experiments:
        metric, _ = moments[source.name]
        scale, form = (POINTS, ".2f") if metric.endswith("accuracy") else (1.0, ".5g")
        densities = collect_densities(source.results)
        for (level, branch), runs in values[source.name].items():
            cells = (f"{scale * runs[one]:{form}}" if one in runs else "" for one in replicates)
            name = "dense" if level == 0 else branch
            rows.append((name_cell(source.name), percent(densities[level, branch]), name, metric, *cells))
    headings = ("run", "weights left, %", "branch", "metric", *(f"replicate {one}" for one in replicates))
    left_out = f"The first {MOST_ROWS} of {len(rows):,} rows." if len(rows) > MOST_ROWS else ""
    caption = "Values by run: each training of each experiment; accuracies in %."
    return make_table("comparison-runs", caption, headings, rows[:MOST_ROWS], words=(0, 2, 3), left_out=left_out)

"""The sections on an experiment: what was found, its figure and tables, how it was made, what may be wrong with it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, final

from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.claims.findings import describe_claims, describe_more_runs, format_difference
from statistical_report_generator.claims.outline import answer_claims
from statistical_report_generator.claims.types import Claims, LevelClaim
from statistical_report_generator.document import Block, Figure, Points, Section, Table, Text, Verdicts, VerdictWord
from statistical_report_generator.figures.experiment import draw_accuracy_over_density
from statistical_report_generator.figures.learning import choose_levels, draw_learning, find_curve
from statistical_report_generator.inference.intervals import BranchSummary, collect_values, summarise_experiment
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.layers import average_sparsities, describe_kept
from statistical_report_generator.sections.threats import doubt_simulation, list_threats
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS, format_interval, make_headings, make_rows

Values = dict[tuple[int, str], dict[int, float]]  # by level and branch, then by replicate


@final
@dataclass(frozen=True)
class ExperimentOptions:
    """How an experiment is judged; see `assess_claims`.

    Attributes:
        margin: The loss that counts as none, in units of the metric.
        num_looks: Planned.
        test: On the mean or on the median.
        metric: What tickets are compared by; see `choose_figures` for None.
        moment: When it is taken; as `metric`.
    """

    margin: float = 0.002
    num_looks: int = 1
    test: Literal["t", "sign"] = "t"
    metric: str | None = None
    moment: str | None = None


def describe_experiment(source: Source, options: ExperimentOptions) -> list[Section]:
    """Returns the sections on one experiment.

    Args:
        source: Its results.
        options: How it is judged.

    Raises:
        ValueError: When the results lack what claims are made of.
    """
    results = source.results
    if results.get("simulated"):
        threats = Section("Threats to validity", [Points(tuple(doubt_simulation(results)))])
        return [_describe_simulation(), *describe_kept(source), threats]
    claims, summaries = judge_experiment(source, options)
    metric, moment = claims["metric"], claims["moment"]
    found: list[Block] = [
        Text(answer_claims(claims)),
        Verdicts(tuple(_judge(level, claims) for level in claims["levels"])),
    ]
    if not claims["levels"]:
        found = [Text("No level was pruned, so there is no ticket to claim anything of.")]
    if metric.endswith("accuracy"):
        found.append(_draw(source, summaries, moment, metric))
    return [
        Section("What was found", found),
        *_show_learning(source),
        Section("By level", [_tabulate_levels(source, summaries, metric)]),
        *describe_kept(source),
        Section("By run", [_tabulate_runs(source, metric, moment), *_tabulate_moved(source)], technical=True),
        Section("Each claim", [Points(tuple(_join_lines(describe_claims(claims))))], technical=True),
        Section("How it was made", [_tabulate_settings(source), _tell_how_to_check(source)], technical=True),
        Section("Threats to validity", [Points(tuple(list_threats(source, claims)))]),
    ]


def judge_experiment(source: Source, options: ExperimentOptions) -> tuple[Claims, list[BranchSummary]]:
    """Returns claims and summaries of an experiment, by the same metric at the same moment.

    Args:
        source: Its results.
        options: How it is judged.

    Raises:
        ValueError: When the results lack what claims are made of.
    """
    claims = assess_claims(
        source.results,
        metric=options.metric,
        moment=options.moment,
        margin=options.margin,
        num_looks=options.num_looks,
        test=options.test,
    )
    return claims, summarise_experiment(source.results, metric=claims["metric"], moment=claims["moment"])


def _show_learning(source: Source) -> list[Section]:
    """Returns the section on how tickets, controls and the dense network learn; none where trainings have no curve."""
    results = source.results
    name, levels = find_curve(results), choose_levels(results)
    if name is None or not levels:
        return []
    what, last = name.replace("_", " "), levels[-1]
    runs = [row for row in results["trainings"] if (row["level"], row["branch"]) == (last, "ticket")]
    values = [value for row in runs if (value := row["history"]["curve"][name][-1]) is not None]
    scale, unit = (POINTS, " %") if name.endswith("accuracy") else (1.0, "")
    end = f"{scale * fmean(values):.4g}{unit}" if values else "not finite"
    figure = Figure(
        name=f"{source.slug}-learning",
        caption=f"{what.capitalize()} over training steps at the sparsest levels with controls: means of "
        f"{len(runs)} runs, faint lines are single runs.",
        alternative=f"At the sparsest level shown the ticket's {what} ends at {end}, mean of {len(runs)} runs.",
        draw=lambda: draw_learning(results, source.name),
    )
    return [Section("Learning", [figure])]


def _join_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yields one entry a level: its own line with those on its controls, which are indented."""
    entry = ""
    for line in lines:
        if not line.startswith(" ") and entry:
            yield entry
            entry = ""
        entry = f"{entry} {line.strip().removeprefix('=> ')}".strip()
    yield entry


def _describe_simulation() -> Section:
    words = "No ticket was trained here, so none may be claimed. The masks say what magnitudes now would remove."
    return Section("A simulation", [Verdicts((("simulated", words),))])


def _judge(level: LevelClaim, claims: Claims) -> tuple[VerdictWord, str]:
    difference = format_difference(level["ticket_minus_dense"], claims)
    words = f"At {POINTS * level['density']:.1f} % of the weights: {difference} against the dense network"
    if level["winning"] == "winning":
        return "winning", f"{words}; {level['winning_reason']}."
    if level["more_runs"] is not None:
        words += f"; {describe_more_runs(level['more_runs'])}"
    if level["winning"] is not None:
        words += f"; {level['winning']} to win: {level['winning_reason']}" if level["winning"] == "not shown" else ""
    return level["verdict"], f"{words}."


def _draw(source: Source, summaries: list[BranchSummary], moment: str, metric: str) -> Figure:
    num, dense = summaries[0].value.num_replicates, summaries[0]
    tickets = [summary for summary in summaries if summary.branch == "ticket" and summary.level]
    last = f"; at {POINTS * tickets[-1].density:.1f} % {format_interval(tickets[-1].value)} %" if tickets else ""
    when = "at the least validation loss" if moment == "early_stop" else "after the last step"
    return Figure(
        name=f"{source.slug}-accuracy",
        caption=f"Test accuracy {when} over the share of weights that are left. Mean of {num} replicates, bars are "
        "95 % Student t intervals of one level alone, faint points are single runs, and branches of one level stand "
        "side by side; the band is the dense network's.",
        alternative=f"The dense network has a test accuracy of {format_interval(dense.value)} %{last}.",
        draw=lambda: draw_accuracy_over_density(summaries, source.name, collect_values(source.results, moment, metric)),
    )


def _tabulate_levels(source: Source, summaries: list[BranchSummary], metric: str) -> Table:
    table = Table(
        f"{source.slug}-levels",
        "Means over replicates with 95 % intervals.",
        make_headings(metric),
        tuple(make_rows(summaries, metric)),
        frozenset({0, 2, 3, 4}),
    )
    return add_costs(table, source, (average_sparsities(source, one.level, one.branch) for one in summaries))


def _tabulate_runs(source: Source, metric: str, moment: str) -> Table:
    values = collect_values(source.results, moment, metric)
    scale, form = (POINTS, ".2f") if metric.endswith("accuracy") else (1.0, ".5g")
    unit = ", %" if metric.endswith("accuracy") else ""
    return _tabulate_by_run(f"{source.slug}-runs", f"{metric}{unit} of each run.", values, scale=scale, form=form)


def _tabulate_moved(source: Source) -> list[Table]:
    values: Values = {}
    for row in source.results["trainings"]:
        if "share_moved" in row:
            values.setdefault((row["level"], row["branch"]), {})[row["replicate"]] = row["share_moved"]
    caption = "Share of the kept weights that ended at another value than they started from, % of each run."
    return [_tabulate_by_run(f"{source.slug}-moved", caption, values, scale=POINTS, form=".2f")] if values else []


def _tabulate_by_run(name: str, caption: str, values: Values, *, scale: float, form: str) -> Table:
    replicates = sorted({replicate for found in values.values() for replicate in found})
    rows = []
    for (level, branch), found in sorted(values.items()):
        cells = (f"{scale * found[one]:{form}}" if one in found else "" for one in replicates)
        rows.append((str(level), "dense" if level == 0 else branch, *cells))
    return Table(
        name,
        caption,
        ("level", "branch", *(f"run {replicate}" for replicate in replicates)),
        tuple(rows),
        frozenset(range(2, 2 + len(replicates))) | {0},
    )


def _tabulate_settings(source: Source) -> Table:
    settings = dict(_flatten({"plan": source.results.get("plan", {})}))
    for number, environment in enumerate(source.results.get("environments", [])):
        settings |= dict(_flatten({f"environment {number + 1}": environment}))
    rows = tuple((name, value) for name, value in settings.items())
    return Table(
        f"{source.slug}-settings", "What the run was asked for, and what computed it.", ("setting", "value"), rows
    )


def _tell_how_to_check(source: Source) -> Text:
    where = "RUN" if source.folder is None else str(source.folder)
    checked = source.verification
    if checked is None:
        done = f"This report does not re-check the run: lottery-tickets verify {where} does, from its files"
    else:
        num_held = checked.num_checks - len(checked.problems)
        done = (
            f"Re-checked from its files when this report was made: {num_held:,} of {checked.num_checks:,} checks hold "
            f"({checked.command})"
        )
    return Text(
        f"{done}; with --re-evaluate and --train-again it computes again. The same command that made the run goes on "
        "with it."
    )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return found

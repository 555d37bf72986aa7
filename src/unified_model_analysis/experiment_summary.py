"""What `imp` and `demo` show at the end: a table, findings in words, a summary as JSON, a figure."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from statistical_report_generator.claims.types import Claims

SUMMARY: Final = "summary.json"
FIGURE: Final = "accuracy.png"
NAMED: Final = "ticket"  # in a summary: the file of the run's ticket; those of earlier versions say nothing of it
NEEDED: Final = ("matplotlib", "scipy")  # modules of the extra "report"
NEEDED_BY_PAGES: Final = ("jinja2", "pydantic", "typst")
DRAWING: Final = 2  # of the figure; to be raised when it comes to look otherwise


def check_report_extra(*, pages: bool = False) -> None:
    """Raises ModuleNotFoundError before hours of training when the report could not be made after them.

    Args:
        pages: Whether PDF and HTML will be made; if not, tables and figures alone.
    """
    needed = NEEDED + (NEEDED_BY_PAGES if pages else ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"tables and figures need {' and '.join(missing)}; install them by: pip install 'lottery-tickets[report]'"
        )


def report_experiment(
    run: Path, *, moment: str | None, margin: float, num_looks: int = 1, test: Literal["t", "sign"] = "t"
) -> None:
    """Prints what a finished run has shown, and writes summary, figure and one ticket into its folder.

    Args:
        run: The run folder.
        moment: When figures are taken, see `summarise_experiment`; the first that all trainings have when None.
        margin: The loss of accuracy that counts as none, a fraction; of a loss or a perplexity in its own units.
        num_looks: Planned number of looks at the results while replicates are added, see `assess_claims`.
        test: Which, see `assess_claims`.
    """
    from lottery_tickets.experiments.folder import TICKET
    from lottery_tickets.storage import load_results, save_results
    from unified_model_analysis.experiment_tickets import make_run_ticket

    results = load_results(run / "results.json")
    summary = make_summary(results, moment=moment, margin=margin, num_looks=num_looks, test=test)
    tell_claims(results, summary["claims"])
    is_drawn = has_figure(summary["claims"])
    if is_drawn:
        draw_figure(results, summary["claims"], run / FIGURE)
    ticket = make_run_ticket(run, summary["claims"])
    if ticket is not None:
        ticket.save(run / TICKET)
    save_results(summary, run / SUMMARY)  # after the ticket that it names
    if ticket is not None:
        say(f"ticket: {run / TICKET}, sparsity {ticket.mask.sparsity:.4f}; use_ticket(model, file) in Python")
    say(
        f"{f'figure: {run / FIGURE}, ' if is_drawn else ''}summary: {run / SUMMARY}, raw results: "
        f"{run / 'results.json'}",
        f"re-check everything from the files: lottery-tickets verify {run}",
    )


def tell_claims(results: Mapping[str, Any], claims: "Claims") -> None:
    """Prints the answer, a table with a verdict for each row, and what must be said beside it.

    Args:
        results: Of an experiment.
        claims: Made of them.
    """
    from statistical_report_generator.claims.outline import answer_claims, list_remarks, list_verdicts
    from statistical_report_generator.inference.intervals import summarise_experiment
    from statistical_report_generator.tables import format_table

    say(answer_claims(claims), "")
    print(format_table(summarise_experiment(results, **choose(claims)), list_verdicts(claims), claims["metric"]))
    say("", *list_remarks(claims))


def make_summary(
    results: Mapping[str, Any], *, moment: str | None, margin: float, num_looks: int, test: Literal["t", "sign"]
) -> dict[str, Any]:
    """Returns what a summary holds: `moment`, `findings`, `claims`, `branches`, which `ticket`, and what `drawn_with`.

    Args:
        results: Of the run.
        moment: As in `report_experiment`.
        margin: As in `report_experiment`.
        num_looks: As in `report_experiment`.
        test: As in `report_experiment`.
    """
    from lottery_tickets.experiments.folder import TICKET
    from statistical_report_generator.claims.assessment import assess_claims
    from statistical_report_generator.claims.findings import describe_claims
    from statistical_report_generator.inference.intervals import summarise_experiment
    from unified_model_analysis.experiment_tickets import choose_level

    claims = assess_claims(results, moment=moment, margin=margin, num_looks=num_looks, test=test)
    branches = [asdict(summary) for summary in summarise_experiment(results, **choose(claims))]
    findings = describe_claims(claims)
    return {
        "moment": claims["moment"],
        "findings": findings,
        "claims": claims,
        "branches": branches,
        NAMED: None if choose_level(claims) is None else TICKET,
        "drawn_with": name_drawing(),
    }


def choose(claims: "Claims") -> dict[str, str]:
    """Returns the metric and the moment that claims are about."""
    return {"metric": claims["metric"], "moment": claims["moment"]}


def has_figure(claims: "Claims") -> bool:
    """Returns whether there is a figure: of accuracies only, whose axis is in percent."""
    return claims["metric"].endswith("accuracy")


def name_drawing() -> str:
    """Returns what decides the bytes of the figure: the version of matplotlib, and that of our drawing."""
    from matplotlib import __version__

    return f"matplotlib {__version__}, drawing {DRAWING}"


def draw_figure(results: Mapping[str, Any], claims: "Claims", path: Path) -> None:
    """Draws what claims are made of, over density, into a file.

    Args:
        results: Of a run.
        claims: Made of them.
        path: Where to.
    """
    from statistical_report_generator.figures import draw_accuracy_over_density, save_figure
    from statistical_report_generator.inference.intervals import collect_values, summarise_experiment

    subject = results["plan"]["subject"]
    title = subject.get("workload") or subject["model"]
    values = collect_values(results, claims["moment"], claims["metric"])
    save_figure(draw_accuracy_over_density(summarise_experiment(results, **choose(claims)), title, values), path)

"""What `imp` and `demo` show at the end: a table, findings in words, a summary as JSON, a figure."""

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Final

SUMMARY: Final = "summary.json"
FIGURE: Final = "accuracy.png"


def check_report_extra() -> None:
    """Raises ModuleNotFoundError before hours of training when the report could not be made after them."""
    missing = [name for name in ("matplotlib", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"tables and figures need {' and '.join(missing)}; install them by: pip install 'lottery-tickets[report]'"
        )


def report_experiment(run: Path, *, title: str, moment: str, margin: float, num_looks: int = 1) -> None:
    """Prints table and findings of a finished run and writes its summary and figure into its folder.

    Args:
        run: The run folder.
        title: Of the figure.
        moment: When accuracy is taken, see `summarise_experiment`.
        margin: The loss of accuracy that counts as none, a fraction.
        num_looks: Planned number of looks at the results while replicates are added, see `assess_claims`.
    """
    from lottery_tickets.storage import load_results, save_results
    from statistical_report_generator.claims.assessment import assess_claims
    from statistical_report_generator.claims.findings import describe_claims
    from statistical_report_generator.figures import draw_accuracy_over_density, save_figure
    from statistical_report_generator.inference.intervals import summarise_experiment
    from statistical_report_generator.tables import format_table

    results = load_results(run / "results.json")
    summaries = summarise_experiment(results, moment=moment)
    claims = assess_claims(results, moment=moment, margin=margin, num_looks=num_looks)
    findings = describe_claims(claims)
    print(format_table(summaries), *findings, sep="\n")
    branches = [asdict(summary) for summary in summaries]
    save_results({"moment": moment, "findings": findings, "claims": claims, "branches": branches}, run / SUMMARY)
    save_figure(draw_accuracy_over_density(summaries, title), run / FIGURE)
    print(f"figure: {run / FIGURE}, summary: {run / SUMMARY}, raw results: {run / 'results.json'}")
    print(f"re-check everything from the files: lottery-tickets verify {run}")

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


def report_experiment(run: Path, *, title: str, moment: str, margin: float) -> None:
    """Prints table and findings of a finished run and writes its summary and figure into its folder.

    Args:
        run: The run folder.
        title: Of the figure.
        moment: When accuracy is taken, see `summarise_experiment`.
        margin: The loss of accuracy that counts as none, a fraction.
    """
    from lottery_tickets.storage import load_results, save_results
    from statistical_report_generator.figures import draw_accuracy_over_density, save_figure
    from statistical_report_generator.findings import describe_findings
    from statistical_report_generator.statistics import summarise_experiment
    from statistical_report_generator.tables import format_table

    results = load_results(run / "results.json")
    summaries = summarise_experiment(results, moment=moment)
    findings = describe_findings(summaries, margin)
    print(format_table(summaries), *findings, sep="\n")
    save_results({"moment": moment, "findings": findings, "branches": [asdict(s) for s in summaries]}, run / SUMMARY)
    save_figure(draw_accuracy_over_density(summaries, title), run / FIGURE)
    print(f"figure: {run / FIGURE}, summary: {run / SUMMARY}, raw results: {run / 'results.json'}")
    print(f"re-check everything from the files: lottery-tickets verify {run}")

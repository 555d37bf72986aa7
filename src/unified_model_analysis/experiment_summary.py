"""What `imp` and `demo` show at the end: a table, findings in words, a summary as JSON, a figure."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

SUMMARY: Final = "summary.json"
FIGURE: Final = "accuracy.png"


def check_report_extra() -> None:
    """Raises ModuleNotFoundError before hours of training when the report could not be made after them."""
    missing = [name for name in ("matplotlib", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"tables and figures need {' and '.join(missing)}; install them by: pip install 'lottery-tickets[report]'"
        )


def report_experiment(
    run: Path, *, moment: str, margin: float, num_looks: int = 1, test: Literal["t", "sign"] = "t"
) -> None:
    """Prints table and findings of a finished run and writes its summary and figure into its folder.

    Args:
        run: The run folder.
        moment: When accuracy is taken, see `summarise_experiment`.
        margin: The loss of accuracy that counts as none, a fraction.
        num_looks: Planned number of looks at the results while replicates are added, see `assess_claims`.
        test: Which, see `assess_claims`.
    """
    from lottery_tickets.storage import load_results, save_results
    from statistical_report_generator.inference.intervals import summarise_experiment
    from statistical_report_generator.tables import format_table

    results = load_results(run / "results.json")
    summary = make_summary(results, moment=moment, margin=margin, num_looks=num_looks, test=test)
    print(format_table(summarise_experiment(results, moment=moment)), *summary["findings"], sep="\n")
    draw_figure(results, moment, run / FIGURE)
    save_results(summary, run / SUMMARY)
    print(f"figure: {run / FIGURE}, summary: {run / SUMMARY}, raw results: {run / 'results.json'}")
    print(f"re-check everything from the files: lottery-tickets verify {run}")


def make_summary(
    results: Mapping[str, Any], *, moment: str, margin: float, num_looks: int, test: Literal["t", "sign"]
) -> dict[str, Any]:
    """Returns what a summary holds: `moment`, `findings`, `claims`, `branches`, and what `drawn_with`.

    Args:
        results: Of the run.
        moment: As in `report_experiment`.
        margin: As in `report_experiment`.
        num_looks: As in `report_experiment`.
        test: As in `report_experiment`.
    """
    from matplotlib import __version__

    from statistical_report_generator.claims.assessment import assess_claims
    from statistical_report_generator.claims.findings import describe_claims
    from statistical_report_generator.inference.intervals import summarise_experiment

    claims = assess_claims(results, moment=moment, margin=margin, num_looks=num_looks, test=test)
    branches = [asdict(summary) for summary in summarise_experiment(results, moment=moment)]
    findings = describe_claims(claims)
    # Another version of matplotlib draws other bytes.
    return {
        "moment": moment,
        "findings": findings,
        "claims": claims,
        "branches": branches,
        "drawn_with": __version__,
    }


def draw_figure(results: Mapping[str, Any], moment: str, path: Path) -> None:
    """Draws accuracy over density into a file.

    Args:
        results: Of a workload's run.
        moment: As in `report_experiment`.
        path: Where to.
    """
    from statistical_report_generator.figures import draw_accuracy_over_density, save_figure
    from statistical_report_generator.inference.intervals import summarise_experiment

    title = results["plan"]["subject"]["workload"]
    save_figure(draw_accuracy_over_density(summarise_experiment(results, moment=moment), title), path)

"""The table of the page on reports."""

from typing import Any, Final

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, tabulate

NAMES: Final = {"demo": "the demo's", "many": "200 results, each the demo's"}
MEGABYTE: Final = 1e6


def tabulate_reports() -> str:
    """How long a report takes and how large it is."""
    figures = read_results("reports")
    rows = [{"name": words, **figures[name]} for name, words in NAMES.items()]
    columns = {
        "report on": lambda row: str(row["name"]),
        "seconds": lambda row: f"{row['median_seconds']:.1f}",
        "goal": lambda row: f"under {row['goal_seconds']:g}",
        "page, MB": lambda row: f"{row['bytes']['html'] / MEGABYTE:.2f}",
        "PDF, MB": lambda row: f"{row['bytes']['pdf'] / MEGABYTE:.2f}",
        "files": lambda row: f"{row['num_files']:,}",
        "builds, all the same bytes": lambda row: str(row["num_builds"]),
    }
    return f"{tabulate(rows, columns)}\n\n{_note(figures['machine'])}"


def _note(machine: dict[str, Any]) -> str:
    return (
        f"From the start of the process on, medians, on {machine['num_cpus']} CPUs with a load of "
        f"{machine['load_average'][0]:.1f} by others and this. Builds alternate between time zones 26 hours apart."
    )


TABLES: Tables = {"reports": tabulate_reports}

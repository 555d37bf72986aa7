"""The tables of the page on linear mode connectivity."""

from collections.abc import Mapping
from typing import Any

from benchmarks.common import TITLES, read_results
from benchmarks.tables.parts import Columns, Tables, show_interval, tabulate
from statistical_report_generator.figures.connectivity import THRESHOLD
from statistical_report_generator.tables import format_interval


def load_studies() -> dict[str, dict[str, Any]]:
    """Returns the figures of the studies, by the network's title."""
    return {TITLES[name]: read_results(f"connectivity-{name}") for name in ("lenet-300-100", "resnet-20")}


def tabulate_instability() -> str:
    """Instability of all networks over rewinding steps."""
    rows = [
        {"study": title, **row}
        for title, figures in load_studies().items()
        for row in sorted(figures["rows"], key=lambda row: (row["num_rounds"], row["step"]))
    ]
    columns: Columns = {
        "study": lambda row: row["study"],
        "network": lambda row: row["network"],
        "k": lambda row: f"{row['step']}",
        "of training": lambda row: f"{100 * row['share_of_training']:.0f} %",
        "instability, points": lambda row: format_interval(row["instability"]),
        "stable pairs": lambda row: f"{row['num_stable']} of {row['num_pairs']}",
        "loss barrier, nats": lambda row: format_interval(row["barrier"], scale=1.0, form=".3f"),
        "accuracy, %": lambda row: format_interval(row["accuracy"]),
        "minus dense, points": lambda row: show_interval(row["accuracy_minus_dense"], form="+.2f"),
    }
    return tabulate(rows, columns)


def tell_settings() -> str:
    """What was trained and how lines were looked at, in sentences."""
    lines = []
    for title, figures in load_studies().items():
        study, look = figures["study"], figures["look"]
        missing = figures["num_missing_pairs"]
        lines.append(
            f"- {title}: {study['num_steps']:,} steps of {study['batch_size']} images with {study['optimizer']} at "
            f"learning rate {study['learning_rate']:g}, {study['num_replicates']} replicates planned; "
            f"{look['num_points']} alphas, errors on the first {look['num_test_images']:,} test images, batch-norm "
            f"statistics, where there are any, from {look['num_statistics_images']:,} training images."
            + (f" {missing} pairs are not trained and measured yet." if missing else "")
        )
    return "\n".join(lines)


def tell_findings() -> str:
    """From which step on each network is stable, as far as intervals tell."""
    lines = []
    for title, figures in load_studies().items():
        for rounds in sorted({row["num_rounds"] for row in figures["rows"]}):
            chosen = sorted((r for r in figures["rows"] if r["num_rounds"] == rounds), key=lambda row: row["step"])
            words = ", ".join(f"k = {row['step']} {judge(row['instability'])}" for row in chosen)
            lines.append(f"- {title}, {chosen[0]['network']}: {words}.")
    return "\n".join(lines)


def judge(interval: Mapping[str, Any]) -> str:
    """Returns what an interval says of stability."""
    if interval["low"] is None:
        return "undecided (one pair)"
    if interval["high"] < THRESHOLD:
        return "stable"
    return "unstable" if interval["low"] >= THRESHOLD else "undecided"


TABLES: Tables = {
    "connectivity": tabulate_instability,
    "connectivity-settings": tell_settings,
    "connectivity-findings": tell_findings,
}

"""The tables of the page on planning, and of times that commands foretell."""

import statistics
from typing import Any

from benchmarks.common import TITLES as SUBJECTS
from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, make_table, tabulate

MB = 1e6
LONG_SECONDS = 0.1  # which are told in whole milliseconds
TITLES = {
    "early_bird_sgd": "early-bird, SGD",
    "early_bird_adamw": "early-bird, AdamW",
    "fisher": "Fisher scores",
    "robustness": "robustness",
    "landscape": "landscape",
}


def tabulate_predictions() -> str:
    """Predicted and measured peaks of each analysis."""
    figures = read_results("plan")
    rows = [
        (
            TITLES[name],
            f"{row['predicted_bytes'] / MB:,.0f}",
            *(f"{row[peak] / MB:,.0f}" for peak in ("peak_bytes", "untrimmed_peak_bytes")),
            *(f"{row['predicted_bytes'] / row[peak]:.3f}" for peak in ("peak_bytes", "untrimmed_peak_bytes")),
        )
        for name, row in figures["models"].items()
    ]
    size, length = figures["batch"]
    title = f"{figures['model']}, {size} x {length} tokens"
    measured = ("given back", "kept")
    headings = (
        title,
        "predicted, MB",
        *(f"measured, MB, freed memory {how}" for how in measured),
        *(f"predicted / measured, {how} (goal 0.9 to 1.1)" for how in measured),
    )
    return make_table(headings, *rows)


def tabulate_on_gpu() -> str:
    """Predicted and measured peaks on a GPU."""
    figures = read_results("plan_gpu")
    rows = [
        (
            f"{TITLES[name]}, {case['layers']} layers, {case['dtype'].removeprefix('torch.')}",
            f"{case['predicted'][name] / 1e9:.2f}",
            f"{peak / 1e9:.2f}",
            f"{case['predicted'][name] / peak:.3f}",
        )
        for case in figures["cases"]
        for name, peak in case["peaks"].items()
    ]
    size, length = figures["batch"]
    title = f"Qwen2.5-0.5B's shape, {size} x {length} tokens"
    return make_table((title, "predicted, GB", "measured, GB", "predicted / measured"), *rows)


def tabulate_laws() -> str:
    """How predicted and measured peaks grow when one size is doubled."""
    figures = read_results("plan")
    shape: dict[str, int] = figures["shape"]
    rows = [
        (TITLES[analysis], f"{name} {shape[name]} to {2 * shape[name]}", *_describe_growth(found[name]))
        for analysis, found in figures["laws"].items()
        for name in shape
        if name in found
    ]
    return make_table(("analysis", "doubled", "predicted growth", "measured growth", "predicted / measured"), *rows)


def _describe_growth(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['predicted_growth']:.2f}", f"{row['measured_growth']:.2f}", f"{row['ratio']:.3f}"


def tabulate_times() -> str:
    """Predicted and measured seconds of a step of each analysis."""
    found = read_results("foretold")
    rows = [
        (
            SUBJECTS[subject],
            TITLES[name],
            row["step"],
            _show_ms(row["predicted_seconds"]),
            _show_ms(row["cpu_seconds"]),
            _show_ms(row["wall_seconds"]),
            f"{row['ratio']:.2f}",
        )
        for subject, rows in found["subjects"].items()
        for name, row in rows.items()
    ]
    headings = (
        "model",
        "analysis",
        "a step",
        "predicted, ms",
        "measured, ms of CPU",
        "by the wall",
        "predicted / of CPU",
    )
    return make_table(headings, *rows)


def _show_ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= LONG_SECONDS else f"{1000 * seconds:.3g}"


def tabulate_time_left() -> str:
    """The ratio of what was foretold to what it took: medians, with the least and the largest."""
    runs = read_results("time_left")["runs"]

    def show(row: tuple[str, list[dict[str, float]]], key: str) -> str:
        values = [one[key] for one in row[1]]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    columns: Columns = {
        "command": lambda row: row[0],
        "seconds": lambda row: f"{statistics.median(one['seconds'] for one in row[1]):.0f}",
        "first said / taken": lambda row: show(row, "first"),
        "after a quarter": lambda row: show(row, "0.25"),
        "after half": lambda row: show(row, "0.5"),
        "after three quarters": lambda row: show(row, "0.75"),
    }
    return tabulate(list(runs.items()), columns)


TABLES: Tables = {
    "plan": tabulate_predictions,
    "plan-laws": tabulate_laws,
    "plan-gpu": tabulate_on_gpu,
    "foretold": tabulate_times,
    "time-left": tabulate_time_left,
}

"""The tables of runs that are killed or spread over workers, and of what identifying data costs."""

import statistics
from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, make_table, tabulate


def tabulate_kills() -> str:
    """What was left of killed runs when they were done."""
    runs = read_results("kills")["runs"]
    total: dict[str, Any] = {
        name: sum(counts[name] for counts in runs.values())
        for name in ("kills", "at_random", "at_calls", "folders", "failures")
    }
    total |= {
        name: [thing for counts in runs.values() for thing in counts[name]] for name in ("differences", "leftovers")
    }
    columns: Columns = {
        "run": lambda row: f"`{row[0]}`" if row[0] != "all" else "all",
        "kills": lambda row: str(row[1]["kills"]),
        "at a random moment": lambda row: str(row[1]["at_random"]),
        "before or after a call": lambda row: str(row[1]["at_calls"]),
        "folders": lambda row: str(row[1]["folders"]),
        "files that differ": lambda row: str(len(row[1]["differences"])),
        "leftovers": lambda row: str(len(row[1]["leftovers"])),
        "runs that did not finish": lambda row: str(row[1]["failures"]),
    }
    return tabulate([*runs.items(), ("all", total)], columns)


def tabulate_identity() -> str:
    """How long it takes to tell whether data are those of before."""
    found = read_results("identity")
    rows = [(kind, way) for kind in ("float32", "uint8") for way in ("tensors", "one_by_one", "batches")]
    names = {
        "tensors": "tensors in a DataLoader",
        "one_by_one": "map-style, image by image",
        "batches": "list of batches",
    }
    columns: Columns = {
        "60,000 images of 28 x 28": lambda row: f"{names[row[1]]}, {row[0]}",
        "seconds (goal 1)": lambda row: f"{found[row[0]]['timings'][row[1]]['median_seconds']:.2f}",
        "one SHA-256 over all bytes = 1": lambda row: f"{found[row[0]]['over_sha256'][row[1]]:.1f}",
    }
    return tabulate(rows, columns)


def tabulate_executors() -> str:
    """How long an experiment takes on Dask, beside processes."""
    found = read_results("executors")
    seconds = {name: statistics.median(times) for name, times in found["seconds"].items()}
    ratios = [here / there for here, there in zip(found["seconds"]["processes"], found["seconds"]["dask"], strict=True)]
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return make_table(
        ("LeNet-300-100, 2 workers", "seconds", "speed over processes"),
        ("processes here", f"{seconds['processes']:.1f}", "1"),
        ("Dask", f"{seconds['dask']:.1f}", spread),
        ("Dask's cluster begins", f"{seconds['dask_begins']:.1f}", ""),
    )


TABLES: Tables = {"kills": tabulate_kills, "identity": tabulate_identity, "executors": tabulate_executors}

"""The table of times that commands foretell, over those that they then take."""

import statistics

from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, tabulate


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


TABLES: Tables = {"time-left": tabulate_time_left}

"""The tables of what `verify` finds."""

from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, make_table, tabulate

RUNS = ("shell", "python")


def tabulate_forgeries() -> str:
    """What is found of each forgery."""
    rows = read_results("forgeries")["forgeries"]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["forgery"], {})[row["run"]] = row
    head = ("forged", "from the files", "measured again", "from Python: files", "measured again")
    cells = [
        (name, *(_show(runs.get(run), way) for run in RUNS for way in ("files", "measured")))
        for name, runs in found.items()
    ]
    return make_table(head, *cells, _sum_up(rows))


def _show(row: dict[str, Any] | None, way: str) -> str:
    return "" if row is None else "found" if row[way] else "**not found**"


def _sum_up(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    sums = []
    for run in RUNS:
        mine = [row for row in rows if row["run"] == run]
        sums += [f"{sum(bool(row[way]) for row in mine)} of {len(mine)}" for way in ("files", "measured")]
    return ("all", *sums)


def tabulate_mutations() -> str:
    """What is found of random changes."""
    columns: Columns = {
        "changed at random": lambda row: row["kind"],
        "made": lambda row: f"{row['made']}",
        "harmless": lambda row: f"{row['harmless']}",
        "not found from the files": lambda row: f"{row['missed_by_files']}",
        "not found when measured": lambda row: f"{row['missed_measured']}",
        "not found when trained again": lambda row: f"{row['missed_trained']}",
    }
    rows = read_results("forgeries")["mutations"]
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name != "kind"}
    return tabulate([*rows, {"kind": "all", **total}], columns)


def tabulate_missed() -> str:
    """The changes that measuring does not find, each with its reason."""
    columns: Columns = {
        "not found when measured": lambda row: f"`{row['what']}`",
        "why": lambda row: row["reason"],
        "trained again": lambda row: "found" if row["trained"] else "**not found**",
    }
    return tabulate(read_results("forgeries")["missed"], columns)


TABLES: Tables = {
    "forgeries": tabulate_forgeries,
    "mutations": tabulate_mutations,
    "missed-mutations": tabulate_missed,
}

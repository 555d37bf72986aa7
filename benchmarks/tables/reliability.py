"""The tables of what `verify` finds."""

from collections import Counter
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


def tabulate_fuzzing() -> str:
    """What becomes of changed files, by kind, before and now."""
    found = read_results("fuzzing")
    before, now = found["before"], found["this"]
    columns: Columns = {
        "file": lambda row: row["name"],
        "changed": lambda row: f"{row['now']['files']:,}",
        "read": lambda row: f"{row['now']['python']['read']:,}",
        "refused": lambda row: f"{row['now']['python']['refused']:,}",
        "undocumented, before": lambda row: _sum_before(row, "undocumented"),
        "undocumented, now": lambda row: _sum_types(row["now"]["python"]["undocumented"]),
        "unclear, before": lambda row: _sum_before(row, "unclear"),
        "unclear, now": lambda row: _sum_types(row["now"]["python"]["unclear"]),
        "changed, for the shell": lambda row: _count_files(row["now"]["shell"]),
        "not in one line, before": lambda row: "" if row["before"] is None else _sum_shell(row["before"]),
        "not in one line, now": lambda row: _sum_shell(row["now"]),
    }
    rows = [{"name": name, "now": now[name], "before": before.get(name)} for name in now]
    everything = {label: _add_up(list(counts.values())) for label, counts in (("now", now), ("before", before))}
    return tabulate([*rows, {"name": "all", **everything}], columns)


def tabulate_undocumented() -> str:
    """The exceptions that nobody had documented, by type, over all kinds of files."""
    found = read_results("fuzzing")
    sums = {label: Counter[str]() for label in ("before", "this")}
    for label, counts in sums.items():
        for row in found[label].values():
            for way in ("python", "shell"):
                counts.update(row[way]["undocumented"] if row[way] else {})
    names = [name for name, _ in sums["before"].most_common()]
    rows = [(f"`{name}`", f"{sums['before'][name]}", f"{sums['this'][name]}") for name in names]
    total = ("all", *(f"{sum(counts.values())}" for counts in sums.values()))
    return make_table(("exception that is not documented", "before", "now"), *rows, total)


def _sum_before(row: dict[str, Any], what: str) -> str:
    return "" if row["before"] is None else _sum_types(row["before"]["python"][what])


def _sum_types(counts: dict[str, int]) -> str:
    return f"{sum(counts.values()):,}"


def _count_files(counts: dict[str, Any] | None) -> str:
    return "" if counts is None else f"{counts['read'] + counts['refused'] + sum(counts['undocumented'].values()):,}"


def _sum_shell(row: dict[str, Any]) -> str:
    shell = row["shell"]
    return "" if shell is None else f"{sum(shell['undocumented'].values()) + sum(shell['unclear'].values())}"


def _add_up(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the sums over kinds of files, in the form of one."""

    def add(way: str) -> dict[str, Any]:
        found = [row[way] for row in rows if row[way]]
        sums = {name: sum(one[name] for one in found) for name in ("read", "refused")}
        types = {name: sum((Counter(one[name]) for one in found), Counter()) for name in ("undocumented", "unclear")}
        return {**sums, **types}

    return {"files": sum(row["files"] for row in rows), "python": add("python"), "shell": add("shell")}


TABLES: Tables = {
    "fuzzing": tabulate_fuzzing,
    "undocumented": tabulate_undocumented,
    "forgeries": tabulate_forgeries,
    "mutations": tabulate_mutations,
    "missed-mutations": tabulate_missed,
}

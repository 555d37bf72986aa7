"""How often the early-bird rule is fooled by trainings in which no ticket emerges, beside the rule as commonly used.

`python -m benchmarks.studies.early_bird_verdicts` watches each simulated training of `null_trainings.py` and writes
`benchmarks/results/early_bird_verdicts.json`.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import product
from typing import Any, Final

from benchmarks.common import write_results
from benchmarks.studies.null_trainings import CHANNEL_NULLS, EMERGENCES, NULLS, Simulation, watch
from benchmarks.studies.parts import compute_rate, run_in_processes
from lottery_tickets import ConvergenceRule, detect_early_bird_convergence
from lottery_tickets.early_bird.convergence import METHODS, Method

NUM_NULLS: Final = 16  # of each kind
NUM_EMERGENCES: Final = 16
SPARSITIES: Final = (0.5, 0.9)
GROUPS: Final[Mapping[str, Mapping[str, Simulation]]] = {
    "null": NULLS,
    "null, channels": CHANNEL_NULLS,
    "emergence": EMERGENCES,
}


def main() -> None:
    """Watches all of them, counts and writes."""
    jobs = [
        (group, name, seed)
        for group, simulations in GROUPS.items()
        for name in simulations
        for seed in range(NUM_EMERGENCES if group == "emergence" else NUM_NULLS)
    ]
    outcomes = [row for rows in run_in_processes(judge, jobs) for row in rows]
    num_nulls = sum(group != "emergence" for group, _, _ in jobs)
    tables = [_count(outcomes, method, sparsity) for method in METHODS for sparsity in SPARSITIES]
    for table in tables:
        print(table["method"], table["sparsity"], table["null"], table["emergence"])
    print(write_results("early_bird_verdicts", {"num_null_runs": num_nulls, "tables": tables}))


def judge(job: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Returns the verdicts on one training: of our rule and of the common one, by method and sparsity."""
    group, name, seed = job
    settings = list(product(METHODS, SPARSITIES))
    rules = [(ConvergenceRule(method), sparsity) for method, sparsity in settings]
    histories = watch(GROUPS[group][name], seed, rules, channels="channels" in group)
    rows = []
    for (method, sparsity), checks in zip(settings, histories, strict=True):
        ours = detect_early_bird_convergence(checks, ConvergenceRule(method=method))
        common = detect_early_bird_convergence(checks, ConvergenceRule(method=method, require_movement=False))
        figures = {"group": group, "name": name, "method": method, "sparsity": sparsity}
        rows.append({**figures, "verdict": ours["verdict"], "common_verdict": common["verdict"]})
    return rows


def _count(outcomes: list[dict[str, Any]], method: Method, sparsity: float) -> dict[str, Any]:
    """Returns how many trainings converged of each kind, and all verdicts by name, by our rule and the common one."""
    rows = [row for row in outcomes if (row["method"], row["sparsity"]) == (method, sparsity)]
    keys = {"ours": "verdict", "common": "common_verdict"}
    table: dict[str, Any] = {"method": method, "sparsity": sparsity}
    for kind in ("null", "emergence"):
        chosen = [row for row in rows if row["group"].startswith(kind)]
        table[kind] = {who: _rate([row[key] for row in chosen]) for who, key in keys.items()}
    table["by_name"] = {
        name: {who: dict(Counter(row[key] for row in rows if row["name"] == name)) for who, key in keys.items()}
        for name in dict.fromkeys(row["name"] for row in rows)
    }
    return table


def _rate(verdicts: list[str]) -> dict[str, Any]:
    num, num_converged = len(verdicts), verdicts.count("converged")
    return {"num_runs": num, "num_converged": num_converged, **compute_rate(num_converged, num)}


if __name__ == "__main__":
    main()

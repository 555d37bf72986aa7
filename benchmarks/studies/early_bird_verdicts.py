"""How often the early-bird rule is fooled by trainings in which no ticket emerges, beside the rule as commonly used.

`python -m benchmarks.studies.early_bird_verdicts` watches each training of `null_trainings.py` and
`probed_trainings.py` and writes `benchmarks/results/early_bird_verdicts.json`.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import product
from typing import Any, Final

from benchmarks.common import write_results
from benchmarks.studies.null_trainings import CHANNEL_NULLS, EMERGENCES, NULLS, Simulation, watch
from benchmarks.studies.parts import compute_rate, run_in_processes
from benchmarks.studies.probed_trainings import NULLS as REAL_GRADIENTS
from benchmarks.studies.probed_trainings import REAL, Recipe, watch_recipe
from lottery_tickets import ConvergenceRule, detect_early_bird_convergence
from lottery_tickets.early_bird.history import METHODS, EarlyBirdCheckpoint, Method

SPARSITIES: Final = (0.5, 0.9)
FIRST_SEED: Final = 1000  # seeds below it were looked at while the rule was made
# Each kind of training by group, and how many of each kind.
GROUPS: Final[Mapping[str, tuple[Mapping[str, Simulation | Recipe], int]]] = {
    "null": (NULLS, 16),
    "null, channels": (CHANNEL_NULLS, 16),
    "null, real gradients": (REAL_GRADIENTS, 18),
    "emergence": (EMERGENCES, 16),
    "emergence, real": (REAL, 4),
}
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "null": ("null", "null, channels", "null, real gradients"),
    "null, real gradients": ("null, real gradients",),
    "emergence": ("emergence", "emergence, real"),
}


def main() -> None:
    """Watches all of them, counts and writes."""
    jobs = [
        (group, name, FIRST_SEED + number)
        for group, (trainings, num) in GROUPS.items()
        for name in trainings
        for number in range(num)
    ]
    outcomes = [row for rows in run_in_processes(judge, jobs) for row in rows]
    tables = [_count(outcomes, method, sparsity) for method in METHODS for sparsity in SPARSITIES]
    for table in tables:
        print(table["method"], table["sparsity"], *(table[group]["ours"] for group in KINDS))
    print(write_results("early_bird_verdicts", {"tables": tables}))


def judge(job: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Returns the verdicts on one training: of our rule and of the common one, by method and sparsity."""
    group, name, seed = job
    settings = list(product(METHODS, SPARSITIES))
    rules = [(ConvergenceRule(method), sparsity) for method, sparsity in settings]
    training = GROUPS[group][0][name]
    histories: list[list[EarlyBirdCheckpoint]] = (
        watch_recipe(training, seed, rules)
        if isinstance(training, Recipe)
        else watch(training, seed, rules, channels="channels" in group)
    )
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
    for kind, groups in KINDS.items():
        chosen = [row for row in rows if row["group"] in groups]
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

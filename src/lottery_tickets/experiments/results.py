"""The results of an experiment, collected from the records of its trainings."""

from pathlib import Path
from typing import Any, Final, TypedDict

from torch import Tensor

from lottery_tickets._core.files import hash_file
from lottery_tickets._core.folders import to_json_values
from lottery_tickets.experiments import records
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.masks.mask import Mask

RESULTS: Final = "results.json"
SCHEMA: Final = "lottery-tickets experiment 1"


class TrainingRow(TypedDict):
    """One training of an experiment.

    `history` holds `end` and, with our own trainer, `early_stop` and `curve`: JSON-able figures.
    """

    replicate: int
    level: int
    branch: str
    num_weights: int
    num_kept: int
    density: float
    history: dict[str, Any]


class PruningResults(TypedDict):
    """What `compute_iterative_magnitude_pruning` returns."""

    simulated: bool
    target_sparsity: float
    masks: list[Mask]
    final_mask: Mask
    rewind_state: dict[str, Tensor] | None
    trainings: list[TrainingRow]
    run_folder: str | None


def collect_results(run: Path, plan: ExperimentPlan) -> dict[str, Any]:
    """Returns the results of a run: one row a training, raw; averages and intervals are made from them by reports.

    Args:
        run: The run folder.
        plan: Its plan.

    Returns:
        `schema`, `plan`, `versions`, `records` (SHA-256 of each training's record) and `trainings`: `replicate`,
        `level`, `branch`, `num_weights`, `num_kept`, `density` and `history` of each.

    Raises:
        ValueError: When a record is missing or altered.
    """
    rows, hashes = [], {}
    for training in plan.list_all_trainings():
        record = records.load_record(run, training)
        counts = {name: record[name] for name in ("num_weights", "num_kept", "history")}
        rows.append({**record["training"], "density": record["num_kept"] / max(record["num_weights"], 1), **counts})
        hashes[training.path] = hash_file(run / training.path / records.RECORD)
    return {
        "schema": SCHEMA,
        "simulated": False,
        "plan": to_json_values(plan.to_dict()),
        "versions": records.list_versions(),
        "records": hashes,
        "trainings": rows,
    }

"""The results of an experiment, collected from the records of its trainings."""

from typing import Any, Final, TypedDict

from torch import Tensor

from lottery_tickets._core.files import hash_file
from lottery_tickets.experiments.folder import RECORD, ExperimentFolder
from lottery_tickets.masks.mask import Mask

SCHEMA: Final = "lottery-tickets experiment 2"


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


def collect_results(folder: ExperimentFolder) -> dict[str, Any]:
    """Returns the results of a run: one row a training, raw; averages and intervals are made from them by reports.

    Args:
        folder: The folder of the run.

    Returns:
        `schema`, `plan`, `environments` (those that the run has gone on in), `unidentified` (what of the
        caller's code and data could not be identified, in words), `looks` (how many
        replicates there were each time), `records` (SHA-256 of each training's
        record) and `trainings`: `replicate`, `level`, `branch`, `num_weights`, `num_kept`, `density` and `history` of
        each.

    Raises:
        ValueError: When a record is missing or altered.
    """
    rows, hashes = [], {}
    for training in folder.plan.list_all_trainings():
        record = folder.load_record(training)
        counts = {name: record[name] for name in ("num_weights", "num_kept", "history")}
        rows.append({**record["training"], "density": record["num_kept"] / max(record["num_weights"], 1), **counts})
        hashes[training.path] = hash_file(folder.place(training) / RECORD)
    return {
        "schema": SCHEMA,
        "simulated": False,
        "plan": folder.list_plan(),
        "environments": folder.list_environments(),
        "unidentified": folder.list_unidentified(),
        "looks": folder.list_looks(),
        "records": hashes,
        "trainings": rows,
    }

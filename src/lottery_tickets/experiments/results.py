"""The results of an experiment, collected from the records of its trainings."""

from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict

from lottery_tickets._core.loggers import Log
from lottery_tickets._core.reading import Form, check_form, make_form
from lottery_tickets.experiments.folder import RECORD, ExperimentFolder
from lottery_tickets.experiments.layers import LAYERS, LayerCounts, find_share_moved
from lottery_tickets.experiments.plan import Training

SCHEMA: Final = "lottery-tickets experiment 2"
COUNTED: Final[Form] = {...: {**make_form(LayerCounts), "num_moved": int}}  # of a training, never of a simulation


class TrainingRow(TypedDict):
    """One training of an experiment.

    `history` holds `end` and, with our own trainer, `early_stop` and `curve`: JSON-able figures.

    Attributes:
        layers: By name the counts of each pruned layer; absent where an earlier version trained.
        share_moved: The share of the kept weights that ended at another value than they started from, from 0 to 1;
            absent as `layers`, and of a simulation.
    """

    replicate: int
    level: int
    branch: str
    num_weights: int
    num_kept: int
    density: float
    history: dict[str, Any]
    layers: NotRequired[dict[str, LayerCounts]]
    share_moved: NotRequired[float]


def tell_training(log: Log, training: Training, record: Mapping[str, Any]) -> None:
    """Tells what a training has recorded: its curve at its steps, and at its level what it ended with.

    Args:
        log: Told.
        training: Which training.
        record: Of it.
    """
    history = record["history"]
    curve = history.get("curve", {})
    for place, step in enumerate(curve.get("step", ())):
        figures = {name: values[place] for name, values in curve.items() if name != "step"}
        log.tell({training.path: figures}, int(step))
    moments = {name: history[name] for name in ("end", "early_stop") if name in history}
    density = record["num_kept"] / max(record["num_weights"], 1)
    log.tell({f"replicate-{training.replicate}/{training.branch}": {**moments, "density": density}}, training.level)


def collect_results(folder: ExperimentFolder) -> dict[str, Any]:
    """Returns the results of a run: one row a training, raw; averages and intervals are made from them by reports.

    Args:
        folder: The folder of the run.

    Returns:
        `schema`, `plan`, `environments` (those that the run has gone on in), `unidentified` (what of the
        caller's code and data could not be identified, in words), `looks` (how many
        replicates there were each time), `records` (SHA-256 of each training's
        record) and `trainings`, of each what `TrainingRow` has.

    Raises:
        OSError: When a record is missing.
        ValueError: When a record was altered.
    """
    rows, hashes = [], {}
    for training in folder.plan.list_all_trainings():
        record = folder.load_record(training)
        row = {name: record[name] for name in ("num_weights", "num_kept", "history")}
        if LAYERS in record:
            check_form(record[LAYERS], COUNTED, f"{folder.place(training) / RECORD}: {LAYERS}")
            row |= {LAYERS: record[LAYERS], "share_moved": find_share_moved(record[LAYERS])}
        rows.append({**record["training"], "density": record["num_kept"] / max(record["num_weights"], 1), **row})
        hashes[training.path] = folder.hash_record(training)
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

"""Running an experiment: compute the trainings that are missing from its folder, then collect the results."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from torch import nn

from lottery_tickets._core.files import exclusive_lock, read_json, write_json
from lottery_tickets._core.folders import hash_json, remove_leftovers, to_json_values
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.experiments import records, steps
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.results import RESULTS, collect_results
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.masks.holding import hold_mask, remove_mask

PLAN: Final = "plan.json"
LOCK: Final = ".lock"

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_run(run: Path, plan: ExperimentPlan) -> Iterator[None]:
    """Holds a run folder for this process, begun or continued with the same plan and versions.

    Raises:
        ValueError: When the folder belongs to another experiment, holds foreign files, or is in use.
    """
    path = run / PLAN
    if not path.exists() and run.is_dir() and any(_is_foreign(entry) for entry in run.iterdir()):
        message = f"{run} must be empty or a run folder, but it holds other files; name a new folder"
        raise ValueError(message)
    with exclusive_lock(run / LOCK):
        said = {"plan": plan.to_dict(), "versions": records.list_versions()}
        if path.exists():
            _compare_plans(path, said)
        else:
            write_json(path, {**said, "plan_sha256": hash_json(said)})
        remove_leftovers(run)
        yield


def run_replicate(
    run: Path,
    plan: ExperimentPlan,
    subject: Subject,
    replicate: int,
    after_training: Callable[[], object] = lambda: None,
) -> None:
    """Trains, prunes, rewinds and repeats until the last level; what the run folder has already is not done again."""
    for training in plan.list_trainings(replicate):  # level after level, the ticket before its controls
        if not records.is_finished(run, training):
            run_training(run, plan, subject, training)
        after_training()


def run_training(run: Path, plan: ExperimentPlan, subject: Subject, training: Training) -> nn.Module:
    """Prunes what the level before has trained, rewinds it, trains it, and writes its folder.

    The dense training, level 0, prunes nothing and starts from theta_0; it keeps theta_k, which later levels are
    rewound to (Frankle & Carbin, arXiv 1803.03635 and 1903.01611).

    Returns:
        The trained model.
    """
    seeds = training.derive_seeds(plan)
    model = subject.build(seeds["initialisation"])
    mask = steps.prune(run, training, plan, subject.find_weights(model).shapes)
    steps.rewind_(model, run, training, plan, mask)
    hold_mask(model, mask)
    start_hash = hash_state(copy_state(model))
    try:
        history, rewind_point = steps.train(model, subject, training, plan)
    finally:
        remove_mask(model)
    states = {records.WEIGHTS: copy_state(model), **({records.REWIND: rewind_point} if rewind_point else {})}
    facts = {
        "plan_sha256": hash_json(plan.to_dict()),
        "versions": records.list_versions(),
        "seeds": seeds,
        "num_weights": mask.num_weights,
        "num_kept": mask.num_kept,
        "start_sha256": start_hash,
        "history": history,
    }
    records.save_training(run, training, mask, states, facts)
    logger.info("%s: density %.4f, %s", training.path, mask.density, history.get("end", history))
    return model


def finish_run(run: Path, plan: ExperimentPlan) -> dict[str, Any]:
    """Collects the results of a run whose trainings are all there, writes them and returns them."""
    results = collect_results(run, plan)
    write_json(run / RESULTS, results)
    return results


def _is_foreign(entry: Path) -> bool:
    """Returns whether an entry of a folder without a plan is foreign: not what a run killed at its start leaves."""
    return entry.name != LOCK and not (entry.name.startswith(f".{PLAN}.") and entry.name.endswith(".part"))


def _compare_plans(path: Path, said: dict[str, Any]) -> None:
    stored = read_json(path)
    found = {name: stored.get(name) for name in said} if isinstance(stored, dict) else {}
    differences = sorted(_find_differences(found, to_json_values(said)))
    if differences:
        message = (
            f"{path.parent} must be continued with the settings and versions it was begun with, but these differ: "
            f"{'; '.join(differences)}; use the same ones or name a new folder"
        )
        raise ValueError(message)


def _find_differences(found: Any, asked: Any, where: str = "") -> list[str]:  # noqa: ANN401 - JSON values
    if isinstance(found, dict) and isinstance(asked, dict):
        names = found.keys() | asked.keys()
        return [d for n in names for d in _find_differences(found.get(n), asked.get(n), f"{where}.{n}".lstrip("."))]
    return [] if found == asked else [f"{where} is {found!r} there and {asked!r} here"]

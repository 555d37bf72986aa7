"""Running an experiment: compute the trainings that are missing from its folder, then collect the results."""

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from lottery_tickets._core.files import write_json
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.experiments import steps
from lottery_tickets.experiments.folder import RESULTS, REWIND, WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.masks.holding import hold_mask, remove_mask

logger = logging.getLogger(__name__)


def run_replicate(
    folder: ExperimentFolder,
    subject: Subject,
    replicate: int,
    after_training: Callable[[], object] = lambda: None,
) -> None:
    """Trains, prunes, rewinds and repeats until the last level; what the run folder has already is not done again."""
    for training in folder.plan.list_trainings(replicate):  # level after level, the ticket before its controls
        if not folder.is_finished(training):
            run_training(folder, subject, training)
        after_training()


def run_training(folder: ExperimentFolder, subject: Subject, training: Training) -> nn.Module:
    """Prunes what the level before has trained, rewinds it, trains it, and writes its folder.

    The dense training, level 0, prunes nothing and starts from theta_0; it keeps theta_k, which later levels are
    rewound to (Frankle & Carbin, arXiv 1803.03635 and 1903.01611).

    Returns:
        The trained model.
    """
    seeds = training.derive_seeds(folder.plan)
    model = subject.build(seeds["initialisation"])
    mask = steps.prune(folder, training, subject.find_weights(model).shapes)
    steps.rewind_(model, folder, training, mask)
    hold_mask(model, mask)
    start_hash = hash_state(copy_state(model))
    try:
        history, rewind_point = steps.train(model, subject, training, folder.plan)
    finally:
        remove_mask(model)
    states = {WEIGHTS: copy_state(model), **({REWIND: rewind_point} if rewind_point else {})}
    facts = {
        "seeds": seeds,
        "num_weights": mask.num_weights,
        "num_kept": mask.num_kept,
        "start_sha256": start_hash,
        "history": history,
    }
    folder.save(training, mask, states, facts)
    logger.info("%s: density %.4f, %s", training.path, mask.density, history.get("end", history))
    return model


def finish_run(folder: ExperimentFolder) -> dict[str, Any]:
    """Collects the results of a run whose trainings are all there, writes them and returns them; that is a look."""
    folder.count_look()
    results = collect_results(folder)
    write_json(folder.path / RESULTS, results)
    return results

"""Running an experiment: compute the trainings that are missing from its folder, then collect the results."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from lottery_tickets._core.states import copy_clean_state, hash_state, view_clean_state
from lottery_tickets.experiments import steps
from lottery_tickets.experiments.folder import WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.layers import LAYERS, count_layers
from lottery_tickets.experiments.plan import FRESH, Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.masks.holding import hold_mask, remove_mask
from lottery_tickets.masks.mask import Mask

logger = logging.getLogger(__name__)


def run_replicate(
    folder: ExperimentFolder,
    subject: Subject,
    replicate: int,
    *,
    after_training: Callable[[], object] = lambda: None,
    check_wanted: Callable[[], object] = lambda: None,
) -> None:
    """Trains, prunes, rewinds and repeats until the last level; what the run folder has already is not done again.

    Args:
        folder: The folder of the run.
        subject: What is trained.
        replicate: Which replicate; held meanwhile, so that nobody else trains it.
        after_training: Called when a training has ended, or is there.
        check_wanted: Called before each training; raises where nobody asks for it any more.
    """
    with folder.held(replicate, check_wanted) as check_held:
        for training in folder.plan.list_trainings(replicate):  # level after level, the ticket before its controls
            check_wanted()
            if not folder.is_finished(training):
                run_training(folder, subject, training, check_held)
            if training == folder.plan.find_first(replicate):
                _check_is_new(folder, training)
            if training.branch == "copy":
                _check_pair(folder, training)
            after_training()


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """What a training leaves.

    Attributes:
        model: Trained.
        mask: What it was held to.
        states: To be stored, by file name.
        facts: What its record says besides where it was made and the hashes of the files.
    """

    model: nn.Module
    mask: Mask
    states: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def run_training(
    folder: ExperimentFolder, subject: Subject, training: Training, check_held: Callable[[], object]
) -> None:
    """Computes a training and writes its folder, unless its replicate is not held any more."""
    trained = compute_training(folder, subject, training)
    folder.save(training, trained.mask, trained.states, trained.facts, check_held)
    logger.info("%s: density %.4f, %s", training.path, trained.mask.density, trained.facts["history"].get("end"))


def compute_training(folder: ExperimentFolder, subject: Subject, training: Training) -> Trained:
    """Prunes what the level before has trained, rewinds it and trains it; writes nothing.

    The first training, dense, prunes nothing and starts from theta_0; it keeps theta_k, which later ones are rewound
    to (Frankle & Carbin, arXiv 1803.03635 and 1903.01611).

    Args:
        folder: The folder of the run, which has the trainings before it.
        subject: What is trained.
        training: Which training.
    """
    seeds = training.derive_seeds(folder.plan)
    is_fresh = training.branch in FRESH
    model = subject.build(seeds["initialisation"], replicate=training.replicate, is_fresh=is_fresh)
    mask = steps.prune(folder, training, subject.find_weights(model).whole_shapes, subject.ticket)
    steps.rewind_(model, folder, training, mask)
    hold_mask(model, mask, others=folder.plan.others)
    start = copy_clean_state(model)
    start_hash = hash_state(start)
    try:
        history, states = steps.train(model, subject, training, folder.plan, start)
        layers = count_layers(mask, start, view_clean_state(model))
        del start  # before the trained state is copied: of a large model there is no room for both
        states[WEIGHTS] = copy_clean_state(model)
    except Exception as error:
        error.add_note(f"in {training.path}, the {training.name}")
        if (together := folder.together).num_processes > 1:
            error.add_note(
                f"in process {together.place} of the {together.num_processes} that train the model; where another has "
                "ended, look for its own error; the same command goes on"
            )
        raise
    finally:
        remove_mask(model)
    facts = {
        "seeds": seeds,
        "num_weights": mask.num_weights,
        "num_kept": mask.num_kept,
        LAYERS: layers,
        "start_sha256": start_hash,
        "history": history,
    }
    return Trained(model, mask, states, facts)


def _check_is_new(folder: ExperimentFolder, first: Training) -> None:
    """Raises where a replicate repeats an earlier one bit for bit: it would be counted twice, and claims with it."""
    others = [folder.plan.find_first(number) for number in range(first.replicate)]
    ends = [folder.load_record(other)["files"][WEIGHTS] for other in others if folder.is_finished(other)]
    if folder.load_record(first)["files"][WEIGHTS] in ends:
        raise ValueError(
            f"replicates must differ, but the {first.name} ended with the same bits twice; the training data must be "
            "shuffled by torch's generators, or there must be one replicate"
        )


def _check_pair(folder: ExperimentFolder, copy: Training) -> None:
    """Raises where a pair says nothing about the noise of training: it had none, or nothing was trained."""
    record = folder.load_record(copy)
    if hash_state(folder.load_weights(copy)) == record["start_sha256"]:
        raise ValueError(
            "trainer_fn must train the model it is given, or return another, but a copy ended bit for bit as it began; "
            "does it train a model of its own?"
        )
    if record["files"][WEIGHTS] == folder.load_record(copy.ticket)["files"][WEIGHTS]:
        raise ValueError(
            "the two copies must see the data in different orders, but ended bit for bit alike, which would pass for "
            "perfect stability; pass a loader with shuffle=True that draws from the global generators or its own"
        )


def finish_run(folder: ExperimentFolder) -> dict[str, Any]:
    """Collects the results of a run whose trainings are all there, writes them and returns them; that is a look."""
    folder.count_look()
    results = collect_results(folder)
    folder.write_results(results)
    return results

"""Re-checking a whole run: nothing is trained, and nothing is believed that can be computed again."""

import os
import random
from functools import partial
from pathlib import Path
from typing import Final

from tqdm import tqdm

from lottery_tickets._core.files import LOCK, read_json
from lottery_tickets._core.folders import MARKER, read_hashed
from lottery_tickets.experiments.folder import (
    CHANGES_FROM_PYTHON,
    CONNECTIVITY,
    CONNECTIVITY_FROM_PYTHON,
    EVALUATE,
    IMP,
    IMP_FROM_PYTHON,
    LOOKS,
    RECORD,
    RESULTS,
    RETRAINING_FROM_PYTHON,
    TICKET,
    WEIGHTS,
    ExperimentFolder,
)
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.experiments.ticket import find_odd_ticket
from lottery_tickets.experiments.verification.checks import Check, run_check
from lottery_tickets.experiments.verification.remeasuring import Remeasurement, check_subject
from lottery_tickets.experiments.verification.trainings import TrainingChecks

REPORT: Final = frozenset({"summary.json", "accuracy.png"})  # what the command line makes of the results
KNOWN: Final = frozenset({MARKER, LOCK, LOOKS, RESULTS, TICKET}) | REPORT
MOST_MISSING: Final = 1000
MAKERS: Final = {  # by whether they are about a workload
    True: (IMP, EVALUATE, CONNECTIVITY),
    False: (IMP_FROM_PYTHON, RETRAINING_FROM_PYTHON, CONNECTIVITY_FROM_PYTHON),
}


def verify_run(
    run: str | Path, subject: Subject | None = None, *, num_trained_again: int = 0, progress: bool = False
) -> list[Check]:
    """Returns every check of a run folder, those that fail with the problem found.

    From the files are checked: the plan and its hash; that every training is there, and nothing else; the hashes of
    all its files; that its versions, seeds and counts are the plan's; that pruning or shuffling again gives its mask;
    that it started from the stored theta_k (or, with learning-rate rewinding, the stored trained weights) under its
    mask; that checkpoints are of one form, finite, pruned and not emptied; that histories are finite and agree with
    themselves; that controls have their ticket's layer counts; that as many weights of each layer are kept, and have
    moved, as is recorded; that replicates differ; that results and looks are those the records give; and that the
    ticket that lies there, if one does, is one of its own.

    With a subject every checkpoint is loaded and measured again, unless a check of its files failed, and must give the
    recorded figures of the end and of the early stop: to the bit in the environment of its record, else within 0.001,
    which a note then says. Fresh weights are drawn again from their seeds. Some trainings, drawn so that nobody knows
    which before, can be computed again too, each from the files of those before it, and must end in the same bits.

    Args:
        run: The run folder.
        subject: What computes: `create_workload_subject(run)`, or `create_caller_subject(run, model, dataloader)`.
        num_trained_again: How many trainings to compute again, with a subject; all where there are no more.
        progress: Whether to show a bar while measuring.

    Raises:
        OSError: When there is no such folder.
        ValueError: When the folder has no plan that can be read, so that nothing can be checked against it.
    """
    folder = ExperimentFolder.read(Path(run))
    if problem := _find_many_missing(folder):
        return [Check("every training is there", str(run), problem)]
    checks = {training: TrainingChecks(folder, training).run() for training in folder.plan.list_all_trainings()}
    measured: list[Check] = []
    if subject is not None:
        sound = [training for training, found in checks.items() if not any(check.problem for check in found)]
        measured = _measure_again(folder, subject, sound, num_trained_again, progress=progress)
    return [
        *(check for found in checks.values() for check in found),
        run_check("its settings agree with one another", MARKER, partial(_find_disagreement, folder)),
        run_check("it holds nothing else", str(run), partial(_find_foreign_entries, folder)),
        run_check("no replicate is there twice", str(run), partial(_find_copies, folder)),
        run_check("the looks are those at its replicates", LOOKS, partial(_find_odd_looks, folder)),
        run_check("the results are those the records give", RESULTS, partial(_compare_results, folder)),
        *_check_ticket(folder),
        *measured,
    ]


def _measure_again(
    folder: ExperimentFolder, subject: Subject, trainings: list[Training], num_trained_again: int, *, progress: bool
) -> list[Check]:
    checks = [check_subject(folder, subject)]
    if checks[0].problem:
        return checks
    chosen = random.SystemRandom().sample(trainings, min(num_trained_again, len(trainings)))
    try:
        for training in tqdm(trainings, unit="checkpoint", disable=not progress):
            checks += Remeasurement(folder, subject, training).run()
        for training in tqdm(chosen, unit="training", disable=not progress or not chosen):
            checks.append(Remeasurement(folder, subject, training).train_again())
    finally:
        subject.build(folder.plan.seed, replicate=0, is_fresh=False)  # a caller's own model starts where it was
    return checks


def _find_many_missing(folder: ExperimentFolder) -> str:
    """A plan may claim millions of trainings: what is not there need not be gone through one by one."""
    num_found = sum(1 for _ in folder.path.glob("replicate-*/*"))
    num_planned = folder.plan.num_trainings
    if num_planned <= num_found + MOST_MISSING:
        return ""
    return f"{num_planned:,} are planned and {num_found:,} are there; run the same command again to compute them"


def _find_disagreement(folder: ExperimentFolder) -> str:
    """Some settings stand there twice: who made it follows from what it is about, a recipe has some of the plan's."""
    plan, made_by = folder.plan, read_hashed(folder.path / MARKER).get("made_by")
    maker = _find_maker(plan)
    if maker not in {None, made_by}:
        return f"it says it was made by {made_by}, but such a run is made by {maker}"
    recipe = plan.subject.get("recipe")
    if recipe is None:
        return ""
    if recipe["num_steps"] != plan.num_steps:
        return f"its recipe has {recipe['num_steps']} steps, the plan {plan.num_steps}"
    rates = tuple((pattern, rate) for pattern, rate in recipe["prune_rates"])
    if (
        plan.ticket_sha256 is None
        and plan.num_levels
        and (plan.schedule.prune_rates, plan.schedule.scope) != (rates, recipe["scope"])
    ):
        return f"its recipe prunes by {rates}, {recipe['scope']}, the plan by {plan.schedule}"
    return ""


def _find_maker(plan: ExperimentPlan) -> str | None:
    """Returns what makes such a run; None where several may."""
    if plan.subject.keys().isdisjoint({"workload", "layers"}) or {"workload", "layers"} <= plan.subject.keys():
        return None
    pruning, retraining, comparing = MAKERS["workload" in plan.subject]
    if plan.is_parted:
        return comparing if plan.ticket_sha256 is not None or not plan.num_levels else None
    if plan.others == "frozen":
        return CHANGES_FROM_PYTHON
    return pruning if plan.ticket_sha256 is None else retraining


def _find_foreign_entries(folder: ExperimentFolder) -> str:
    """What is in a training's folder is compared with its record; links are found there and here."""
    planned = {folder.place(training) for training in folder.plan.list_all_trainings()}
    parents = {place.parent for place in planned}
    foreign, links = [], []
    for place, folders, files in os.walk(folder.path):
        entries = [Path(place, name) for name in [*folders, *files]]
        links += [entry for entry in entries if entry.is_symlink()]
        if Path(place) in planned:
            continue
        known = planned | parents | {folder.path / name for name in KNOWN}
        foreign += [entry for entry in entries if entry not in known or (entry in planned | parents) != entry.is_dir()]
        folders[:] = [name for name in folders if Path(place, name) in known]
    if links:
        return f"{_list_names(folder, links)} are links, which may lead anywhere"
    if foreign:
        return f"{_list_names(folder, foreign)} are not in the plan"
    lock = folder.path / LOCK
    return f"{LOCK} must be empty" if lock.exists() and lock.stat().st_size else ""


def _list_names(folder: ExperimentFolder, entries: list[Path]) -> list[str]:
    return sorted(str(entry.relative_to(folder.path)) for entry in entries)


def _find_copies(folder: ExperimentFolder) -> str:
    seen: dict[str, str] = {}
    for replicate in range(folder.plan.num_replicates):
        first = folder.plan.find_first(replicate)
        if (folder.place(first) / RECORD).is_file():
            end = folder.load_record(first)["files"][WEIGHTS]
            if end in seen:
                return f"{first.path} ended with the same bits as {seen[end]}"
            seen[end] = first.path
    return ""


def _find_odd_looks(folder: ExperimentFolder) -> str:
    looks, most = folder.list_looks(), folder.plan.num_replicates
    if any(type(look) is not int for look in looks) or looks != sorted(set(looks)) or not all(n > 0 for n in looks):
        return f"{looks} are not numbers of replicates, ascending"
    if not looks or looks[-1] != most:
        return f"results of {most} replicates were given, but the looks were at {looks}"
    return ""


def _check_ticket(folder: ExperimentFolder) -> list[Check]:
    """Runs of earlier versions, and those from Python, have none."""
    if not (folder.path / TICKET).exists():
        return []
    return [run_check("its ticket is one of its own", TICKET, partial(find_odd_ticket, folder))]


def _compare_results(folder: ExperimentFolder) -> str:
    found, expected = read_json(folder.path / RESULTS), collect_results(folder)
    if found == expected:
        return ""
    odd = {name for name in found.keys() & expected.keys() if found[name] != expected[name]}
    return f"{sorted(odd | (found.keys() ^ expected.keys()))} differ from what the records say"

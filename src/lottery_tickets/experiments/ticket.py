"""Tickets of an experiment as files that travel: the mask of a level with the weights that it was trained from."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from lottery_tickets._core.folders import hash_json
from lottery_tickets._core.records import find_commit
from lottery_tickets.experiments import steps
from lottery_tickets.experiments.folder import TICKET, ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.masks.mask import Mask
from lottery_tickets.tickets import Ticket

SAVED: Final = (
    "saved"  # when and by what a file was made: not in a run's own, which have the same bits wherever they lie
)


def draw_ticket(
    folder: ExperimentFolder, level: int, *, replicate: int = 0, claims: Mapping[str, Any] | None = None
) -> Ticket:
    """Returns a ticket of a finished run: its mask, the weights that it was trained from, where it is from.

    Args:
        folder: Of the run.
        level: Rounds of pruning, from 1.
        replicate: Which repetition.
        claims: What was shown of the level.

    Raises:
        ValueError: When the run has no such ticket, is not finished, or was altered.
    """
    training = find_ticket(folder.plan, level, replicate)
    start = steps.load_start(folder, training)
    return make_ticket(collect_results(folder), training, folder.load_mask(training), start, claims)


def make_ticket(
    results: Mapping[str, Any],
    training: Training,
    mask: Mask,
    start: Mapping[str, Tensor],
    claims: Mapping[str, Any] | None = None,
) -> Ticket:
    """Returns the ticket of a training with what results say of how it was made.

    Args:
        results: With `plan`, `environments` and `records`.
        training: The ticket's.
        mask: Its mask.
        start: The weights that it was trained from, before pruning.
        claims: What was shown of its level.
    """
    plan = ExperimentPlan.from_dict(results["plan"])
    provenance = {
        "method": mask.provenance.get("method", "given"),
        "level": training.level,
        "replicate": training.replicate,
        "sparsity": mask.sparsity,
        "rewinding": plan.rewinding,
        "seeds": training.derive_seeds(plan),
        "plan": results["plan"],
        "environments": results["environments"],
        "records_sha256": hash_records(results),
    }
    return Ticket(mask, start, training.first_step(plan), provenance, claims)


def find_ticket(plan: ExperimentPlan, level: int, replicate: int) -> Training:
    """Returns the training of a ticket.

    Raises:
        ValueError: When the plan has none there, or is about a change mask, whose other weights are not zero.
    """
    if plan.others == "frozen":
        raise ValueError(
            "a ticket's other weights must be zero, but those of this run are frozen at what they were; apply the mask "
            'by hold_mask(model, mask, others="frozen")'
        )
    if not 0 <= replicate < plan.num_replicates:
        raise ValueError(
            f"the run has replicates 0 to {plan.num_replicates - 1}, but no {replicate}; choose one of them"
        )
    tickets = [t for t in plan.list_trainings(replicate) if t.branch == "ticket" and t.level]
    found = [ticket for ticket in tickets if ticket.level == level]
    if not found:
        levels = [ticket.level for ticket in tickets]
        raise ValueError(f"the run has tickets at levels {levels}, but none at {level}; level 0 is the dense network")
    return found[0]


def hash_records(results: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the records of all trainings: what results are made of."""
    return hash_json(results["records"])


def describe_saving() -> dict[str, Any]:
    """Returns when and by what a ticket is written: the date, UTC, and the commit of the working folder."""
    return {"date": datetime.now(UTC).date().isoformat(), "commit": find_commit(Path.cwd())}


def find_odd_ticket(folder: ExperimentFolder) -> str:
    """Compares the ticket that lies in a run folder with the one that its trainings give; claims are left out."""
    found = Ticket.load(folder.path / TICKET)
    place = (found.provenance.get("level"), found.provenance.get("replicate"))
    if any(type(number) is not int for number in place):
        return f"it says it is of level {place[0]!r}, replicate {place[1]!r}"
    made = draw_ticket(folder, int(str(place[0])), replicate=int(str(place[1])))
    pairs = {
        "mask": (found.mask.digest, made.mask.digest),
        "theta_k": (found.state_sha256, made.state_sha256),
        "step": (found.step, made.step),
        "provenance": tuple(
            {name: value for name, value in ticket.provenance.items() if name != SAVED} for ticket in (found, made)
        ),
    }
    odd = [name for name, (one, other) in pairs.items() if one != other]
    return f"its {', '.join(odd)} are not those that the trainings give" if odd else ""

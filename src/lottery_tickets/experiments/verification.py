"""Re-checking a run from its files alone: nothing is trained and nothing is believed that can be computed again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from torch import Tensor

from lottery_tickets._core.bits import count_bits
from lottery_tickets._core.files import hash_file, read_json
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments import steps
from lottery_tickets.experiments.folder import MASK, RECORD, RESULTS, REWIND, WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.plan import FRESH, Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.masks.mask import Mask


@final
@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What must hold.
        where: The training, or the file.
        problem: What was found instead; empty when it holds.
    """

    name: str
    where: str
    problem: str = ""


def verify_run(run: str | Path) -> list[Check]:
    """Returns every check of a run folder, those that fail with the problem found.

    Checked are: the plan and its hash; that every training is there; the hashes of all its files; that its versions
    and plan are the run's; that its seeds follow from the plan; that masks are nested, keep exactly the planned
    counts, and are those that pruning the stored weights gives again; that the weights a ticket started from are the
    stored theta_k (or, with learning-rate rewinding, the stored trained weights) under its mask; that pruned weights
    are zero in every checkpoint; that controls have their ticket's layer counts; and that the results are those the
    records give.

    Args:
        run: The run folder.

    Raises:
        ValueError: When the folder has no plan that can be read, so that nothing can be checked against it.
    """
    folder = ExperimentFolder.read(Path(run))
    trainings = folder.plan.list_all_trainings()
    checks = [check for training in trainings for check in _Verification(folder, training).run_checks()]
    return [
        *checks,
        _check("it holds no other trainings", str(run), partial(_find_foreign_entries, folder)),
        _check("the results are those the records give", RESULTS, partial(_compare_results, folder)),
    ]


def _check(name: str, where: str, find_problem: Callable[[], str]) -> Check:
    """Runs one check; a file that cannot be read is a problem like any other."""
    try:
        return Check(name, where, find_problem())
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, RuntimeError) as error:
        return Check(name, where, str(error) or repr(error))


def _compare_results(folder: ExperimentFolder) -> str:
    found, expected = read_json(folder.path / RESULTS), collect_results(folder)
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"{differing} differ from what the records say" if differing else ""


def _find_foreign_entries(folder: ExperimentFolder) -> str:
    planned = {folder.place(training) for training in folder.plan.list_all_trainings()}
    entries = folder.path.glob("replicate-*/*")
    foreign = sorted(str(entry.relative_to(folder.path)) for entry in entries if entry not in planned)
    return f"{foreign} are not in the plan" if foreign else ""


@final
class _Verification:
    """The checks of one training."""

    def __init__(self, folder: ExperimentFolder, training: Training) -> None:
        self.folder, self.plan, self.training = folder, folder.plan, training
        self.place = folder.place(training)

    def run_checks(self) -> list[Check]:
        files = _check("its files are whole and unaltered", self.training.path, self.find_altered_files)
        if files.problem:
            return [files]
        checks: dict[str, Callable[[], str]] = {
            "its plan, environment and seeds are the run's": self.find_foreign_settings,
            "its mask keeps the planned counts": self.find_wrong_counts,
            "its mask follows from the trainings before it": self.find_wrong_mask,
            "it started from the stored weights": self.find_wrong_start,
            "its pruned weights are zero": self.find_nonzero_weights,
        }
        return [files, *(_check(name, self.training.path, find) for name, find in checks.items())]

    @property
    def record(self) -> dict[str, Any]:
        return self.folder.load_record(self.training)

    @property
    def mask(self) -> Mask:
        return self.folder.load_mask(self.training)

    def find_altered_files(self) -> str:
        if not self.place.is_dir():
            return "the training is missing; run the same command again to compute it"
        expected = self.record["files"]
        found = {path.name: hash_file(path) for path in self.place.iterdir() if path.name != RECORD}
        wanted = {MASK, WEIGHTS} | ({REWIND} if self.training == self.training.dense else set())
        if set(expected) != wanted:
            return f"the record lists {sorted(expected)}, not {sorted(wanted)}"
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        return f"{differing} do not match the hashes in the record" if differing else ""

    def find_foreign_settings(self) -> str:
        record, environments = self.record, self.folder.list_environments()
        if record["recipe_sha256"] != self.plan.recipe_sha256:
            return "it was made under another plan"
        if record["environment"] not in environments:
            return f"it was made with {record['environment']}, the run has gone on with {environments}"
        if record["seeds"] != self.training.derive_seeds(self.plan):
            return "its seeds do not follow from the plan"
        return ""

    def find_wrong_counts(self) -> str:
        mask = self.mask
        if self.plan.ticket_sha256 is not None and self.training.level == 1:
            return self.find_wrong_ticket(mask)
        sizes = {name: shape.numel() for name, shape in mask.shapes.items()}
        for group, num_kept in self.plan.schedule.count_kept(sizes, self.training.level).items():
            found = sum(count_bits(mask.bits[name]) for name in group.names)
            if found != num_kept:
                return f"{', '.join(group.names)} keep {found} weights, planned are {num_kept}"
        counts = (self.record["num_kept"], self.record["num_weights"])
        return "" if counts == (mask.num_kept, mask.num_weights) else "the record states other counts than its mask has"

    def find_wrong_ticket(self, mask: Mask) -> str:
        ticket = self.folder.load_mask(self.training.ticket)
        if ticket.digest != self.plan.ticket_sha256:
            return "its mask is not the ticket that was given"
        return "" if mask.num_kept == ticket.num_kept else "it keeps another number of weights than the ticket"

    def find_wrong_mask(self) -> str:
        mask = self.mask
        given = mask if self.plan.ticket_sha256 is not None and self.training == self.training.ticket else None
        if mask != steps.prune(self.folder, self.training, mask.shapes, given):
            return "pruning or shuffling the stored files again gives another mask"
        if self.training.branch == "ticket":
            nested = self.training.level == 0 or mask.is_subset(self.folder.load_mask(self.training.parent))
            return "" if nested else "it keeps weights that were pruned the level before"
        ticket = self.folder.load_mask(self.training.ticket)
        return (
            "" if mask.layer_sparsity() == ticket.layer_sparsity() else "its layers are not as sparse as its ticket's"
        )

    def find_wrong_start(self) -> str:
        mask, start_hash = self.mask, self.record["start_sha256"]
        if self.training == self.training.dense and self.plan.rewind_step > 0:
            return ""  # theta_0 is not stored then, theta_k is
        if self.training == self.training.dense:
            start: dict[str, Tensor] | None = self.folder.load_rewind_point(self.training)
        elif self.training.branch in FRESH:
            start = self.folder.load_rewind_point(self.training)
            steps.prune_state_(start, mask)
            return "it started from theta_k, not from fresh weights" if hash_state(start) == start_hash else ""
        else:
            start = steps.find_start(self.folder, self.training, mask)
        return "" if start is not None and hash_state(start) == start_hash else "the weights it started from are others"

    def find_nonzero_weights(self) -> str:
        mask, state = self.mask, self.folder.load_weights(self.training)
        for name in mask:
            returned = int((state[name][~mask[name]] != 0).sum())
            if returned:
                return f"{returned} pruned weights of {name!r} are not zero"
        return ""

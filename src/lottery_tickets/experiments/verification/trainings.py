"""The checks of one training from its files and those before it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor

from lottery_tickets._core.bits import count_bits
from lottery_tickets._core.files import hash_file
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments import steps
from lottery_tickets.experiments.folder import (
    EARLY_STOP,
    MASK,
    RECORD,
    REWIND,
    START,
    WEIGHTS,
    ExperimentFolder,
    stops_early,
)
from lottery_tickets.experiments.layers import LAYERS, find_odd_layers
from lottery_tickets.experiments.plan import FRESH, Training
from lottery_tickets.experiments.verification.checkpoints import find_emptied, find_moved, find_odd_state, find_returned
from lottery_tickets.experiments.verification.checks import Check, run_check
from lottery_tickets.experiments.verification.histories import find_odd_history
from lottery_tickets.masks.mask import Mask

FACTS: Final = frozenset(
    {
        *("training", "recipe_sha256", "environment", "seeds", "num_weights", "num_kept"),
        *("start_sha256", "history", "files"),
    }
)
UNCOUNTED: Final = "not recorded by the earlier version that trained: what each layer keeps, and how many weights moved"


@final
class TrainingChecks:
    """The checks of one training.

    Args:
        folder: The folder of its run.
        training: Which training.
    """

    def __init__(self, folder: ExperimentFolder, training: Training) -> None:
        self.folder, self.plan, self.training = folder, folder.plan, training
        self.place = folder.place(training)

    def run(self) -> list[Check]:
        """Returns the checks; where files are not what their hashes say, nothing else is looked at."""
        files = run_check("its files are whole and unaltered", self.training.path, self.find_altered_files)
        if files.problem:
            return [files]
        checks: dict[str, Callable[[], str]] = {
            "its plan, environment and seeds are the run's": self.find_foreign_settings,
            "its mask keeps the planned counts": self.find_wrong_counts,
            "its mask follows from the trainings before it": self.find_wrong_mask,
            "it started from the stored weights": self.find_wrong_start,
            **self.list_checks_of_others(),
            "its checkpoints are those of a trained network": self.find_odd_checkpoints,
            "its history is one that the plan gives": self.find_odd_history,
        }
        found = [files, *(run_check(name, self.training.path, find) for name, find in checks.items())]
        note = "" if LAYERS in self.record else UNCOUNTED
        return [*found, run_check("its layers are as it counts them", self.training.path, self.find_odd_layers, note)]

    def list_checks_of_others(self) -> dict[str, Callable[[], str]]:
        """Returns the check of the weights that its mask does not keep."""
        if self.plan.others == "zero":
            return {"its pruned weights are zero": partial(self.find_in_states, find_returned)}
        start = partial(self.folder.load_rewind_point, self.training)
        return {
            "its frozen weights are those it started from": lambda: self.find_in_states(
                lambda state, mask: find_moved(state, start(), mask)
            )
        }

    @property
    def record(self) -> dict[str, Any]:
        """What it says of itself."""
        return self.folder.load_record(self.training)

    @property
    def mask(self) -> Mask:
        """Its mask."""
        return self.folder.load_mask(self.training)

    @property
    def is_origin(self) -> bool:
        """Whether it starts from theta_0 and gives theta_k."""
        return self.training == self.plan.find_origin(self.training.replicate)

    @property
    def has_given_mask(self) -> bool:
        """Whether its level's mask was given, not found by pruning."""
        return self.plan.ticket_sha256 is not None and self.training.level == 1

    def find_altered_files(self) -> str:
        """Compares its files with the hashes in its record."""
        if not self.place.is_dir() or self.place.is_symlink():
            return "the training is missing; run the same command again to compute it"
        if odd := sorted(path.name for path in self.place.iterdir() if not _is_plain_file(path)):
            return f"{odd} are no plain files"
        expected = self.record["files"]
        found = {path.name: hash_file(path) for path in self.place.iterdir() if path.name != RECORD}
        wanted = {MASK, WEIGHTS} | self._list_early_states()
        if not wanted <= set(expected) <= wanted | {EARLY_STOP}:
            return f"the record lists {sorted(expected)}, not {sorted(wanted)}"
        differing = {name for name in expected.keys() & found.keys() if expected[name] != found[name]}
        differing |= expected.keys() ^ found.keys()
        return f"{sorted(differing)} do not match the hashes in the record" if differing else ""

    def find_foreign_settings(self) -> str:
        """Compares what it was made under with what the run says."""
        record, environments = self.record, self.folder.list_environments()
        if odd := sorted(FACTS ^ (record.keys() - {LAYERS})):
            return f"its record has {odd} too many or too few"
        if record["recipe_sha256"] != self.plan.recipe_sha256:
            return "it was made under another plan"
        if record["environment"] not in environments:
            return f"it was made with {record['environment']}, the run has gone on with {environments}"
        if record["seeds"] != self.training.derive_seeds(self.plan):
            return "its seeds do not follow from the plan"
        return ""

    def find_wrong_counts(self) -> str:
        """Compares the counts of its mask with those planned, and with those that its record states."""
        mask = self.mask
        if problem := self.find_wrong_ticket(mask) if self.has_given_mask else self.find_unplanned_counts(mask):
            return problem
        counts = (self.record["num_kept"], self.record["num_weights"])
        return "" if counts == (mask.num_kept, mask.num_weights) else "the record states other counts than its mask has"

    def find_unplanned_counts(self, mask: Mask) -> str:
        """Compares the counts of a mask with those of the schedule."""
        sizes = {name: shape.numel() for name, shape in mask.shapes.items()}
        for group, num_kept in self.plan.schedule.count_kept(sizes, self.training.level).items():
            found = sum(count_bits(mask.bits[name]) for name in group.names)
            if found != num_kept:
                return f"{', '.join(group.names)} keep {found} weights, planned are {num_kept}"
        return ""

    def find_wrong_ticket(self, mask: Mask) -> str:
        """Compares a mask with the ticket that was given."""
        ticket = self.folder.load_mask(self.training.ticket)
        if ticket.digest != self.plan.ticket_sha256:
            return "its mask is not the ticket that was given"
        return "" if mask.num_kept == ticket.num_kept else "it keeps another number of weights than the ticket"

    def find_wrong_mask(self) -> str:
        """Prunes or shuffles again."""
        mask = self.mask
        given = mask if self.has_given_mask and self.training == self.training.ticket else None
        expected = steps.prune(self.folder, self.training, mask.shapes, given)
        if mask != expected:
            return "pruning or shuffling the stored files again gives another mask"
        if mask.provenance != expected.provenance:
            return f"its mask says it was made by {mask.provenance}, not by {expected.provenance}"
        if self.training.branch in ("ticket", "shared"):
            is_first = self.training.level == 0 or self.has_given_mask
            return (
                ""
                if is_first or mask.is_subset(self.folder.load_mask(self.training.parent))
                else "it keeps weights that were pruned the level before"
            )
        ticket = self.folder.load_mask(self.training.ticket)
        return (
            "" if mask.layer_sparsity() == ticket.layer_sparsity() else "its layers are not as sparse as its ticket's"
        )

    def find_wrong_start(self) -> str:
        """Rewinds again, where what is rewound to is stored."""
        mask, start_hash = self.mask, self.record["start_sha256"]
        if self.training.branch in FRESH:
            rewound = self.folder.load_rewind_point(self.training)
            steps.prune_state_(rewound, mask)
            return "it started from theta_k, not from fresh weights" if hash_state(rewound) == start_hash else ""
        start = self.load_start(mask)
        return "" if start is None or hash_state(start) == start_hash else "the weights it started from are others"

    def load_start(self, mask: Mask) -> dict[str, Tensor] | None:
        """Returns the state that it started from, pruned; None where that is not stored."""
        if not self.is_origin:
            return steps.find_start(self.folder, self.training, mask)
        if self.plan.rewind_step and not self.plan.is_parted:
            return None  # theta_0 is not stored then, theta_k is
        return self.folder.load_start(self.training)

    def find_odd_layers(self) -> str:
        """Counts again what each layer keeps and, where what it started from is stored, how many weights moved."""
        record, mask = self.record, self.mask
        if LAYERS not in record:
            return ""
        return find_odd_layers(record[LAYERS], mask, self.load_start(mask), self.folder.load_weights(self.training))

    def find_in_states(self, find: Callable[[dict[str, Tensor], Mask], str]) -> str:
        """Returns the first problem of the states that it left."""
        mask = self.mask
        problem = find(self.folder.load_weights(self.training), mask)
        if not problem and stops_early(self.record["history"]):
            problem = find(self.folder.load_early_stop(self.training), mask)
        return problem

    def find_odd_checkpoints(self) -> str:
        """Compares the states with theta_k and those of a pair with one another; looks for what no training leaves."""
        start, history = self.folder.load_rewind_point(self.training), self.record["history"]
        if (EARLY_STOP in self.record["files"]) != stops_early(history):
            return f"{EARLY_STOP} must be there exactly when the early stop is before the end"
        if self.training.branch == "copy" and self._ends_as_its_ticket():
            return "it ended in the same bits as the ticket that it is a copy of"
        problem = find_odd_state(start, start, self.mask)
        for find in (find_odd_state, find_emptied):
            problem = problem or self.find_in_states(lambda state, mask, find=find: find(state, start, mask))  # type: ignore[misc] # the default is bound
        return problem

    def find_odd_history(self) -> str:
        """Compares its history with the plan and with itself."""
        return find_odd_history(self.record["history"], self.training, self.plan)

    def _ends_as_its_ticket(self) -> bool:
        ticket = self.folder.load_record(self.training.ticket)
        return bool(self.record["files"][WEIGHTS] == ticket["files"][WEIGHTS])

    def _list_early_states(self) -> set[str]:
        """Returns the files of theta_0 and theta_k that it must have beside the trained state."""
        if not self.is_origin:
            return set()
        if self.training.branch == "shared":
            return {START} if self.plan.rewind_step else set()
        return {REWIND}


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()

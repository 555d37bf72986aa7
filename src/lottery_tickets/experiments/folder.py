"""The folder of an experiment: what it was begun with, what each training leaves in it, and how that is read back.

```text
RUN/
    run.json                 the plan and the environments, with their hash; see `_core.folders`
    replicate-0/.lock        while somebody trains this replicate
    replicate-0/level-03-ticket/
        record.json          counts, seeds, history, environment, and the hashes of the files beside it
        mask.safetensors     which weights were kept
        weights.safetensors  the trained state
        rewind.safetensors   theta_k; only in the dense training, level 0
        start.safetensors    theta_0; only in level-00-shared, which ends at theta_k, where k is not 0
        early_stop.safetensors  the state at the early stop, where that is not the end
    looks.json               how many replicates there were each time that results were given
    results.json             all records together
    ticket.safetensors       one ticket with what was shown of it, where `imp` or `demo` ran; see `tickets`
```
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, final

from torch import Tensor

from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.files import (
    LOCK,
    exclusive_lock,
    hash_file,
    remove_leftovers,
    remove_lock,
    write_json,
    writing_folder,
)
from lottery_tickets._core.folders import (
    Grow,
    RunFolder,
    load_state,
    read_hashed,
    save_state,
    to_json_values,
    write_hashed,
)
from lottery_tickets._core.identity.identities import Identity
from lottery_tickets._core.reading import Form, check_form, naming, show
from lottery_tickets._core.sharding.shards import Shards
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets.experiments.growth import grow_plan
from lottery_tickets.experiments.plan import PLAN_FORM, ExperimentPlan, Training
from lottery_tickets.masks.mask import Mask

MASK: Final = "mask.safetensors"
WEIGHTS: Final = "weights.safetensors"
REWIND: Final = "rewind.safetensors"
START: Final = "start.safetensors"
EARLY_STOP: Final = "early_stop.safetensors"
RECORD: Final = "record.json"
RESULTS: Final = "results.json"
LOOKS: Final = "looks.json"
TICKET: Final = "ticket.safetensors"
RECORD_FORM: Final[Form] = {  # what is read of a record; `verify` compares the rest
    "files": {MASK: str, WEIGHTS: str, ...: str},
    "start_sha256": str,
    "history": dict,
    "num_weights": int,
    "num_kept": int,
}
KIND: Final = "an experiment"
POLL_SECONDS: Final = 0.5
IMP: Final = "lottery-tickets imp"
EVALUATE: Final = "lottery-tickets evaluate --start"
CONNECTIVITY: Final = "lottery-tickets connectivity"
IMP_FROM_PYTHON: Final = "compute_iterative_magnitude_pruning, from Python"
RETRAINING_FROM_PYTHON: Final = "compute_lottery_ticket_quality, from Python"
CHANGES_FROM_PYTHON: Final = "compute_change_mask_quality, from Python"
CONNECTIVITY_FROM_PYTHON: Final = "compute_linear_connectivity, from Python"

logger = logging.getLogger(__name__)


def stops_early(history: Mapping[str, Any]) -> bool:
    """Returns whether a history has an early stop before its end, whose state is stored beside the trained one."""
    return "early_stop" in history and history["early_stop"]["step"] != history["end"]["step"]


@final
@dataclass(frozen=True)
class ExperimentFolder:
    """A folder and the plan of the experiment in it.

    Where several processes train one model, all of them call each method, and the files are those of the first: it
    reads and writes, and tells the others. So they need not see its disk.

    Attributes:
        path: The folder.
        plan: What it is to hold.
        environment: What decides the last bits of the trainings that are added now.
        made_by: Which function or command goes on with it.
        identities: What code and data of a caller the experiment is of.
        together: The processes that train the model.
        shards: Where the elements of its state lie, where it is sharded.
    """

    path: Path
    plan: ExperimentPlan
    environment: Mapping[str, Any] = field(default_factory=describe_environment)
    made_by: str = IMP
    identities: Mapping[str, Identity] = field(default_factory=dict)
    together: Together = ALONE
    shards: Shards | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Returns the folder of an experiment as it lies there.

        Raises:
            OSError: When there is no such folder.
            ValueError: When the folder has no plan that can be read.
        """
        settings = RunFolder(path, KIND).read_settings()
        try:
            return cls(path, ExperimentPlan.from_dict(settings))
        except ValueError as error:
            raise ValueError(f"{path} must hold the plan of an experiment, but: {error}") from error

    @contextlib.contextmanager
    def opened(self, *, grow: Grow = grow_plan, accept_changed_environment: bool = False) -> Iterator[Self]:
        """Holds the folder, begun or continued; gives it with the plan that it is to hold.

        Args:
            grow: Joins the plan that is there with this one.
            accept_changed_environment: Whether trainings of another environment may stand beside these.

        Raises:
            OSError: See `RunFolder.opened`.
            ValueError: See `RunFolder.opened`.
        """
        begin = partial(
            RunFolder(self.path, KIND, self.made_by, PLAN_FORM).opened,
            self.plan.to_dict(),
            self.environment,
            identities=self.identities,
            grow=grow,
            accept_changed_environment=accept_changed_environment,
        )
        with self.together.led(begin) as settings:
            yield replace(self, plan=ExperimentPlan.from_dict(settings))

    def list_environments(self) -> list[dict[str, Any]]:
        """Returns the environments that the run has gone on in, in order."""
        return self.together.ask_first(RunFolder(self.path, KIND).list_environments)

    def list_unidentified(self) -> list[str]:
        """Returns in words what of the caller's code and data could not be identified wholly."""
        return self.together.ask_first(RunFolder(self.path, KIND).list_unidentified)

    def place(self, training: Training) -> Path:
        """Returns the folder of a training."""
        return self.path / training.path

    def is_finished(self, training: Training) -> bool:
        """Returns whether a training is finished: its folder appears only when it is whole."""
        return self.together.ask_first(self.place(training).is_dir)

    @contextlib.contextmanager
    def held(self, replicate: int, check_wanted: Callable[[], object]) -> Iterator[Callable[[], object]]:
        """Holds a replicate: a second process that is to train it waits, and goes on from where the first one stopped.

        So a worker that outlives its driver and one of the next driver never write the same folder. Gives what raises
        a ValueError where the replicate's folder was removed meanwhile: by now another run may be there.

        Args:
            replicate: Which replicate.
            check_wanted: Called while waiting; raises where nobody asks for the replicate any more.

        Raises:
            OSError: When the system gives no lock there.
        """
        checks: list[Callable[[], None]] = []
        with self.together.led(lambda: self._held_here(replicate, check_wanted, checks)):
            yield partial(self.together.let_first, lambda: [check() for check in checks])

    @contextlib.contextmanager
    def _held_here(
        self, replicate: int, check_wanted: Callable[[], object], checks: list[Callable[[], None]]
    ) -> Iterator[None]:
        """Holds a replicate in this process; adds the check that it still is, which goes to no other process."""
        lock = self.path / f"replicate-{replicate}" / LOCK
        has_said = False

        def wait() -> None:
            nonlocal has_said
            check_wanted()
            if not has_said:
                logger.warning("%s is trained by a worker of an earlier call; waiting for it", lock.parent)
            has_said = True
            time.sleep(POLL_SECONDS)

        def check_held() -> None:
            if not is_there():
                raise ValueError(f"{lock.parent} must stay while it is trained, but was removed; nothing was written")

        with exclusive_lock(lock, while_waiting=wait) as is_there:
            try:
                remove_leftovers(lock.parent)
                checks.append(check_held)
                yield
            finally:
                if is_there():
                    remove_lock(lock)

    def save(
        self,
        training: Training,
        mask: Mask,
        states: Mapping[str, Mapping[str, Tensor]],
        facts: Mapping[str, Any],
        check_held: Callable[[], object],
    ) -> None:
        """Writes the folder of a finished training, whole.

        Args:
            training: Which training.
            mask: Its mask.
            states: States by file name.
            facts: What its record says besides where it was made and the hashes of the files.
            check_held: Raises where its replicate is not held any more, see `held`.
        """
        check_held()
        whole = mask.gather()
        with self.together.led(lambda: writing_folder(self.place(training))) as aside:
            self.together.let_first(lambda: whole.save(aside / MASK))
            for name, state in states.items():
                save_state(aside / name, state, self.together)
            self.together.let_first(lambda: self._write_record(aside, training, facts))
            check_held()

    def _write_record(self, folder: Path, training: Training, facts: Mapping[str, Any]) -> None:
        files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        made = {"recipe_sha256": self.plan.recipe_sha256, "environment": dict(self.environment)}
        write_hashed(folder / RECORD, {"training": asdict(training), **made, **facts, "files": files})

    def load_record(self, training: Training) -> dict[str, Any]:
        """Returns the record of a training.

        Raises:
            OSError: When it is missing, or cannot be read.
            ValueError: When it is cut short, altered, or of another training.
        """
        path = self.place(training) / RECORD
        record = self.together.ask_first(lambda: read_hashed(path))
        if record.get("training") != asdict(training):
            got = show(record.get("training"))
            raise ValueError(f"{path} must be the record of {training}, but speaks of {got}; was it moved?")
        check_form(record, RECORD_FORM, str(path))
        return record

    def load_mask(self, training: Training) -> Mask:
        """Returns the mask of a training."""
        path = self.place(training) / MASK
        mask = self.together.ask_first(lambda: Mask.load(path))
        with naming(path, "be a mask over weights of the model"):
            return self.place_mask(mask)

    def place_mask(self, mask: Mask) -> Mask:
        """Returns a mask with the bits of what lies here of the model."""
        return mask.placed(None if self.shards is None else self.shards.part(mask))

    def load_weights(self, training: Training) -> dict[str, Tensor]:
        """Returns the trained state of a training."""
        return self._load_state(training, WEIGHTS)

    def load_early_stop(self, training: Training) -> dict[str, Tensor]:
        """Returns the state at the early stop of a training that has one before its end."""
        return self._load_state(training, EARLY_STOP)

    def load_rewind_point(self, training: Training) -> dict[str, Tensor]:
        """Returns theta_k of the training's replicate."""
        origin = self.plan.find_origin(training.replicate)
        return self._load_state(origin, WEIGHTS if origin.branch == "shared" else REWIND)

    def load_start(self, training: Training) -> dict[str, Tensor]:
        """Returns theta_0 of the training's replicate, which a run keeps that rewinds to it or trains in pairs."""
        if self.plan.rewind_step == 0:
            return self.load_rewind_point(training)
        return self._load_state(self.plan.find_origin(training.replicate), START)

    def _load_state(self, training: Training, name: str) -> dict[str, Tensor]:
        return load_state(self.place(training) / name, self.together, self.shards)

    def list_looks(self) -> list[int]:
        """Returns how many replicates there were each time that results were given, ascending."""
        path = self.path / LOOKS
        found = self.together.ask_first(lambda: read_hashed(path) if path.exists() else {"num_replicates": []})
        check_form(found, {"num_replicates": list}, str(path))
        return list(found["num_replicates"])

    def count_look(self) -> None:
        """Counts the look at results that are about to be given; the same replicates once more are no further look."""
        before = self.list_looks()
        check_form(before, [int], str(self.path / LOOKS))
        looks = sorted({*before, self.plan.num_replicates})
        if looks != before:
            self.together.let_first(lambda: write_hashed(self.path / LOOKS, {"num_replicates": looks}))

    def hash_record(self, training: Training) -> str:
        """Returns the SHA-256 of the record of a training."""
        return self.together.ask_first(lambda: hash_file(self.place(training) / RECORD))

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes what all records say together."""
        self.together.let_first(lambda: write_json(self.path / RESULTS, results))

    def list_plan(self) -> dict[str, Any]:
        """Returns the plan as JSON gives it back."""
        values: dict[str, Any] = to_json_values(self.plan.to_dict())
        return values

"""What the callbacks share: a watcher made when training begins, saved when it ends, taken up when it resumes."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, SupportsFloat, TypedDict, final

from torch import Tensor, nn

from lottery_tickets._core.files import parse_json
from lottery_tickets._core.folders import find_differences
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.reading import Form, check_form, make_form, naming
from lottery_tickets._core.sharding.dtensors import is_sharded
from lottery_tickets._core.states import copy_state, load_clean_state
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets.early_bird.history import EarlyBirdCheckpoint
from lottery_tickets.early_bird.probe import Probe
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher, try_probe

START: Final = "start."
WATCH: Final = "watch."
HISTORY: Final = "history"
HISTORY_FORM: Final[Form] = {"step": int, "checkpoints": [make_form(EarlyBirdCheckpoint)], "settings": dict}
MARK_OF_SHARDS: Final = "ds_id"  # of a parameter of which this process holds a part, by DeepSpeed's third stage

logger = logging.getLogger(__name__)


MakeWatcher = Callable[[nn.Module], EarlyBirdWatcher]


class SavedWatch(TypedDict):
    """A watch as it was at a step, which a training that resumes there goes on from.

    Attributes:
        step: The step.
        start: The starting weights.
        watch: The tensors of the watcher.
        checkpoints: All checks so far.
        settings: As the watcher describes them.
    """

    step: int
    start: dict[str, Tensor]
    watch: dict[str, Tensor]
    checkpoints: list[EarlyBirdCheckpoint]
    settings: dict[str, Any]


@final
class Watch:
    """One training, watched on behalf of a callback.

    Models under `fully_shard` or tensor parallelism are watched by all processes together, each with the same probe;
    nothing is written or saved of them.

    Args:
        make_watcher: Given the model about to be trained, makes its watcher.
        folder: Where ticket and evidence go; None for nowhere.
        probe: What learning is measured on, where the watcher has no probe of its own; None for what `begin` is given.

    Raises:
        TypeError: When `make_watcher` is not a function.
    """

    def __init__(
        self,
        make_watcher: MakeWatcher,
        folder: str | Path | None,
        probe: Probe | Iterable[Any] | None = None,
    ) -> None:
        if not callable(make_watcher):
            raise TypeError(
                f"make_watcher must be a function of a model, such as EarlyBirdWatcher, got {make_watcher!r}; for "
                "settings of your own pass functools.partial(EarlyBirdWatcher, check_steps=50)"
            )
        self._make_watcher = make_watcher
        self._probe = probe
        self._folder = None if folder is None else Path(folder)
        self._last_step = 0
        self._is_saved = False
        self._is_sharded = False
        self.watcher: EarlyBirdWatcher | None = None

    @property
    def should_stop(self) -> bool:
        """Whether training on is of no use for the ticket."""
        return self.watcher is not None and self.watcher.should_stop

    def begin(
        self, model: nn.Module, step: int, saved: SavedWatch | None = None, *, default: Probe | None = None
    ) -> None:
        """Takes the model's weights for the starting weights; after step 0, goes on from what was saved.

        Args:
            model: About to be trained.
            step: Steps so far.
            saved: The watch as it was at this step.
            default: The probe where nobody gives one; left out where the model cannot be run on it.

        Raises:
            ValueError: When training resumes and nothing was saved at its step, or with other settings; when this
                process holds only parts of the weights, by another engine than torch's own or with a folder to write.
        """
        _refuse_other_shards(model)
        self._is_sharded = any(map(is_sharded, unwrap(model).parameters()))
        if self._is_sharded and self._folder is not None:
            raise ValueError(
                "a ticket is written where a process has all weights, but the model is sharded (DTensor); pass "
                "folder=None, and take callback.watcher.draw_ticket() when training has ended"
            )

        def make(model: nn.Module) -> EarlyBirdWatcher:
            watcher = self._make_watcher(model)
            if self._probe is not None and not watcher.has_probe:
                watcher.take_probe(model, self._probe)
            elif default is not None and not watcher.has_probe and not self._is_sharded:
                try_probe(watcher, model, default)
            return watcher

        if step == 0:
            self.watcher = make(model)
        elif saved is not None:
            self.watcher = take_up(model, step, saved, make)
        elif self.watcher is None or self._last_step != step:
            raise ValueError(
                f"training must start at step 0 to be watched, but resumes at step {step} without a watch that was "
                "saved at it, and the starting weights are gone; resume from a checkpoint that was saved with this "
                "callback, or train without it"
            )
        self._last_step = step
        self._is_saved = False

    def observe(
        self,
        model: nn.Module,
        step: int,
        *,
        epoch: float | None,
        loss: SupportsFloat | None,
        optimizer: object,
    ) -> bool:
        """Returns whether a check was due after this step, and made.

        Args:
            model: As it is after the step.
            step: Steps so far.
            epoch: Epochs so far.
            loss: The latest that is known.
            optimizer: The rate of its first parameter group is read, at checks only, because it may lie on an
                accelerator; unknown where it has no groups.
        """
        if self.watcher is None:
            raise ValueError("a step must follow the start of training, but the callback has not seen it; train anew")
        self._last_step = step
        checkpoint = self.watcher.observe(model, step, epoch=epoch, loss=loss)
        if checkpoint is None:
            return False
        groups = getattr(optimizer, "param_groups", None)
        checkpoint["learning_rate"] = float(groups[0]["lr"]) if groups else None
        return True

    def save(self, *, at_end: bool) -> None:
        """Writes ticket and evidence into the folder, if there is one: at the end, and when the watcher would stop.

        Args:
            at_end: Whether training has ended. Before that they are written only once.
        """
        if self._folder is None or self.watcher is None or not (at_end or (self.should_stop and not self._is_saved)):
            return
        if not self.watcher.checkpoints:
            logger.warning("nothing is saved in %s, because training ended before the first check", self._folder)
            return
        self.watcher.save(self._folder)
        self._is_saved = True

    def to_saved(self) -> SavedWatch | None:
        """Returns what a training that resumes at the present step needs; None before training, and of shards."""
        if self.watcher is None or self._is_sharded:
            return None
        return {
            "step": self._last_step,
            "start": dict(self.watcher.starting_weights),
            "watch": self.watcher.state(),
            "checkpoints": list(self.watcher.checkpoints),
            "settings": self.watcher.describe(),
        }


def write_watch(path: Path, saved: SavedWatch) -> None:
    """Writes a saved watch as one safetensors file, whole."""
    tensors = {f"{START}{name}": tensor for name, tensor in saved["start"].items()}
    tensors |= {f"{WATCH}{name}": tensor for name, tensor in saved["watch"].items()}
    history = {name: saved[name] for name in ("step", "checkpoints", "settings")}
    write_tensors(path, tensors, {HISTORY: json.dumps(history, allow_nan=False)})


def read_watch(path: Path) -> SavedWatch:
    """Returns what `write_watch` wrote.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is something else, or was altered.
    """
    tensors, metadata = read_tensors(path)
    if HISTORY not in metadata:
        raise ValueError(f"{path} must be a watch that a callback saved, but is some other safetensors file")
    with naming(path, "be a watch that a callback saved"):
        history = parse_json(metadata[HISTORY])
    check_form(history, HISTORY_FORM, str(path))
    return {
        "step": history["step"],
        "start": _below(START, tensors),
        "watch": _below(WATCH, tensors),
        "checkpoints": history["checkpoints"],
        "settings": history["settings"],
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def take_up(model: nn.Module, step: int, saved: SavedWatch, make_watcher: MakeWatcher) -> EarlyBirdWatcher:
    """Returns the watcher of a training that resumes; the model holds the starting weights for a moment.

    Args:
        model: As it is at this step.
        step: At which training resumes.
        saved: The watch as it was at this step.
        make_watcher: Given the model with the starting weights, makes a watcher.

    Raises:
        ValueError: When what was saved is of another step, or has other settings.
    """
    if saved["step"] != step:
        raise ValueError(
            f"the saved watch must be of step {step}, at which training resumes, but is of step {saved['step']}; "
            "resume from the checkpoint that it was saved with"
        )
    inner = unwrap(model)
    now = copy_state(inner)
    try:
        load_clean_state(inner, saved["start"])
        watcher = make_watcher(model)
    finally:
        load_clean_state(inner, now)
    differences = find_differences(*(json.loads(json.dumps(s)) for s in (saved["settings"], watcher.describe())))
    if differences:
        raise ValueError(
            "training must be watched on with the settings and the probe it was watched with, but these differ: "
            f"{'; '.join(sorted(differences))}; use the same, or train from the start"
        )
    watcher.load_state(saved["watch"], saved["checkpoints"], step)
    return watcher


def _refuse_other_shards(model: nn.Module) -> None:
    in_shards = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())
    if in_shards or any(hasattr(weight, MARK_OF_SHARDS) for weight in model.parameters()):
        raise ValueError(
            "a model in shards must be under fully_shard (FSDP2) or tensor parallelism to be watched, but is under "
            "FullyShardedDataParallel (FSDP1) or DeepSpeed's third stage; shard it by fully_shard, or train with data "
            "parallelism"
        )

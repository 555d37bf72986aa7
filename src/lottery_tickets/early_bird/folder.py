"""The folder of an early-bird run: it can be killed at any moment, and the same call goes on from its last check.

```text
FOLDER/
    settings.json            what was asked for; another call is refused
    start.safetensors        theta_0
    check-0003/              the last check, whole; the one before is deleted once this one is there
        model.safetensors    the model's state
        watch.safetensors    masks of the queue, the ticket, the sample that is followed
        trainer.pt           position and optimizer of the default trainer
        history.json         all checkpoints
```
"""

import contextlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from lottery_tickets._core.files import (
    exclusive_lock,
    flush_to_disk,
    read_json,
    read_tensors,
    remove_leftovers,
    write_json,
    write_tensors,
    write_whole,
)
from lottery_tickets._core.folders import load_state, save_state, to_json_values
from lottery_tickets.early_bird.convergence import EarlyBirdCheckpoint

SETTINGS: Final = "settings.json"
START: Final = "start.safetensors"
MODEL: Final = "model.safetensors"
WATCH: Final = "watch.safetensors"
TRAINER: Final = "trainer.pt"
HISTORY: Final = "history.json"


@dataclass(frozen=True)
class SavedCheck:
    """A run as it was after a check.

    Attributes:
        model: The model's state by name.
        watch: The tensors of the watcher.
        trainer: The state of the default trainer.
        checkpoints: All checks so far.
    """

    model: Mapping[str, Tensor]
    watch: Mapping[str, Tensor]
    trainer: Mapping[str, Any]
    checkpoints: list[EarlyBirdCheckpoint]


@final
class EarlyBirdFolder:
    """Reads and writes the folder of one run.

    Args:
        path: The folder; made when it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any], start: Mapping[str, Tensor]) -> Iterator[SavedCheck | None]:
        """Holds the folder for this process; gives its last check, None in a fresh one.

        Args:
            settings: What was asked for, JSON-able.
            start: The starting weights; kept in a fresh folder.

        Raises:
            ValueError: When the folder is of another run, in use, or altered.
        """
        wanted = to_json_values(settings)
        with exclusive_lock(self.path / ".lock"):
            remove_leftovers(self.path)
            if (self.path / SETTINGS).exists():
                found = read_json(self.path / SETTINGS)
                if found != wanted:
                    raise ValueError(_say_difference(self.path, found, wanted))
            else:
                # The settings last, because a folder that has them counts as begun.
                save_state(self.path / START, start)
                write_json(self.path / SETTINGS, wanted)
            yield self._load_last()

    def save(self, check: SavedCheck) -> None:
        """Writes a check, whole, and deletes the ones before it."""
        number = len(check.checkpoints)
        folder = self.path / f"check-{number:04d}"
        aside = Path(tempfile.mkdtemp(dir=self.path, prefix=f".{folder.name}.", suffix=".part"))
        save_state(aside / MODEL, check.model)
        write_tensors(aside / WATCH, check.watch, {})
        write_whole(aside / TRAINER, lambda path: torch.save(dict(check.trainer), path))
        write_json(aside / HISTORY, check.checkpoints)
        flush_to_disk(aside)
        aside.replace(folder)
        flush_to_disk(self.path)
        for earlier in self._list_checks()[:-1]:
            # Renamed first: a folder that is half deleted must not be taken for a check.
            leftover = earlier.with_name(f".{earlier.name}.{os.getpid()}.part")
            earlier.replace(leftover)
            shutil.rmtree(leftover)

    def _list_checks(self) -> list[Path]:
        return sorted(self.path.glob("check-*"), key=lambda path: int(path.name.removeprefix("check-")))

    def _load_last(self) -> SavedCheck | None:
        checks = self._list_checks()
        if not checks:
            return None
        last = checks[-1]
        return SavedCheck(
            model=load_state(last / MODEL),
            watch=read_tensors(last / WATCH)[0],
            trainer=_load_trainer(last / TRAINER),
            checkpoints=read_json(last / HISTORY),
        )


def _load_trainer(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]  # torch goes on with advice to run the file's code
        raise ValueError(
            f"{path} must be what a run saved, but reading it gave: {reason}; delete its folder and run again"
        ) from error
    return found


def _say_difference(path: Path, found: object, wanted: Mapping[str, Any]) -> str:
    known = found if isinstance(found, dict) else {}
    odd = sorted(name for name in known.keys() | wanted.keys() if known.get(name) != wanted.get(name))
    return (
        f"{path} must be the folder of this run, but it differs in {', '.join(odd)}; take another folder, or the same "
        "model and arguments"
    )

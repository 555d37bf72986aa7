"""The folder of an early-bird run: it can be killed at any moment, and the same call goes on from its last check.

```text
FOLDER/
    run.json                 what was asked for; another call is refused
    start.safetensors        theta_0
    check-0003/              the last check, whole; the one before is deleted once this one is there
        model.safetensors    the model's state
        watch.safetensors    masks of the queue, the ticket, the sample that is followed
        trainer.pt           position and optimizer of the default trainer
        history.json         all checkpoints
        record.json          the hashes of these files, and from which check on which environment trained
```
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.files import hash_file, read_json, remove_folder, write_json, write_whole, writing_folder
from lottery_tickets._core.folders import RunFolder, hash_json, load_state, read_hashed, save_state, write_hashed
from lottery_tickets._core.identity.identities import Identity
from lottery_tickets._core.reading import Form, check_form, list_names, make_form, read_torch
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets.early_bird.history import EarlyBirdCheckpoint

KIND: Final = "an early-bird run"
MADE_BY: Final = "the Python function compute_early_bird_tickets"  # the command has it made inside its results
START: Final = "start.safetensors"
MODEL: Final = "model.safetensors"
WATCH: Final = "watch.safetensors"
TRAINER: Final = "trainer.pt"
HISTORY: Final = "history.json"
RECORD: Final = "record.json"
RECORD_FORM: Final[Form] = {
    "files": {...: str},
    "history_sha256": str,
    "environments": [{"from_check": int, "environment": dict}],
}


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
@dataclass(frozen=True)
class EarlyBirdFolder:
    """Reads and writes the folder of one run.

    Attributes:
        path: The folder; made when it is not there.
        identities: What code and data of the caller the run is of.
        accept_changed_environment: Whether to go on where another environment began.
    """

    path: Path
    identities: Mapping[str, Identity]
    accept_changed_environment: bool = False

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any], start: Mapping[str, Tensor]) -> Iterator[SavedCheck | None]:
        """Holds the folder for this process; gives its last check, None in a fresh one.

        Args:
            settings: What was asked for, JSON-able, with the hash of the starting weights.
            start: The starting weights; kept in a fresh folder.

        Raises:
            ValueError: When the folder is of another run or of others, in use, or altered.
        """
        with RunFolder(self.path, KIND, MADE_BY).opened(
            settings,
            describe_environment(of_threads=True),
            identities=self.identities,
            accept_changed_environment=self.accept_changed_environment,
        ):
            if not (self.path / START).exists():
                save_state(self.path / START, start)
            elif hash_state(load_state(self.path / START)) != hash_state(start):
                raise ValueError(f"{self.path / START} must be the weights the run began with, but was altered")
            last = self._load_last()
            self._remove_earlier()  # which a kill may have left
            yield last

    def save(self, check: SavedCheck) -> None:
        """Writes a check, whole, and deletes the ones before it."""
        number = len(check.checkpoints)
        environments = self._list_environments(number)
        with writing_folder(self.path / f"check-{number:04d}") as aside:
            save_state(aside / MODEL, check.model)
            write_tensors(aside / WATCH, check.watch, {})
            _write_trainer(aside / TRAINER, check.trainer)
            files = {path.name: hash_file(path) for path in sorted(aside.iterdir())}
            write_json(aside / HISTORY, check.checkpoints)
            history = _hash_history(check.checkpoints)
            write_hashed(aside / RECORD, {"files": files, "history_sha256": history, "environments": environments})
        self._remove_earlier()

    def _list_environments(self, number: int) -> list[dict[str, Any]]:
        """Returns from which check on which environment trained, up to the check of a number."""
        checks, here = self._list_checks(), describe_environment(of_threads=True)
        before = read_hashed(checks[-1] / RECORD)["environments"] if checks else []
        if before and before[-1]["environment"] == here:
            return list(before)
        return [*before, {"from_check": number, "environment": here}]

    def _remove_earlier(self) -> None:
        for earlier in self._list_checks()[:-1]:
            remove_folder(earlier)

    def _list_checks(self) -> list[Path]:
        checks = (path for path in self.path.glob("check-*") if re.fullmatch(r"check-\d{4,}", path.name))
        return sorted(checks, key=lambda path: int(path.name.removeprefix("check-")))

    def _load_last(self) -> SavedCheck | None:
        checks = self._list_checks()
        if not checks:
            return None
        last = checks[-1]
        _check_files(last)
        return SavedCheck(
            model=load_state(last / MODEL),
            watch=read_tensors(last / WATCH)[0],
            trainer=read_torch(last / TRAINER, "the trainer that a run saved"),
            checkpoints=_read_history(last / HISTORY),
        )


def _write_trainer(path: Path, state: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()  # not the file itself, whose name torch would write into it
    torch.save(dict(state), buffer)
    write_whole(path, lambda aside: aside.write_bytes(buffer.getvalue()))


def _hash_history(checkpoints: Sequence[Mapping[str, Any]]) -> str:
    """Returns the hash of all checks but of the time they took, which is another in each run."""
    return hash_json([{name: value for name, value in check.items() if name != "seconds"} for check in checkpoints])


def _read_history(path: Path) -> list[EarlyBirdCheckpoint]:
    checkpoints: list[EarlyBirdCheckpoint] = read_json(path)
    check_form(checkpoints, [make_form(EarlyBirdCheckpoint)], str(path))
    if not checkpoints:
        raise ValueError(f"{path} must hold the checks so far, but holds none; was it altered?")
    return checkpoints


def _check_files(folder: Path) -> None:
    """Raises where a file is not the one that was saved: an edited value is never gone on from."""
    record = read_hashed(folder / RECORD)
    check_form(record, RECORD_FORM, str(folder / RECORD))
    expected = {**record["files"], HISTORY: record["history_sha256"]}
    found = {path.name: hash_file(path) for path in folder.iterdir() if path.name not in {RECORD, HISTORY}}
    found[HISTORY] = _hash_history(_read_history(folder / HISTORY))
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd:
        raise ValueError(
            f"{folder} must hold what the run saved, but {list_names(odd)} differ from their hashes; delete the folder "
            "of the run and run again, or restore it"
        )

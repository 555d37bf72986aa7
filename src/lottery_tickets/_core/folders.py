"""What folders of runs share: states with their hashes, JSON to compare by, leftovers of writes that were cut off."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from lottery_tickets._core.files import read_tensors, write_tensors
from lottery_tickets._core.states import hash_state

STATE_HASH: Final = "state_sha256"


def hash_json(value: object) -> str:
    """Returns the SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def to_json_values(value: object) -> Any:  # noqa: ANN401 - JSON is anything
    """Returns a value as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value, allow_nan=False))


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a state with its hash."""
    write_tensors(path, state, {STATE_HASH: hash_state(state)})


def load_state(path: Path) -> dict[str, Tensor]:
    """Returns the state that `save_state` wrote.

    Raises:
        ValueError: When the file is cut short or altered.
    """
    state, metadata = read_tensors(path)
    if metadata.get(STATE_HASH) != hash_state(state):
        message = f"{path} must match the hash it carries, but does not; delete its folder and run again, or restore it"
        raise ValueError(message)
    return state


def remove_leftovers(run: Path) -> None:
    """Deletes what writes that were cut off have left aside."""
    # Listed first, because folders vanish on the way.
    for leftover in [*run.glob("**/.*.part")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

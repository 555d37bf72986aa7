"""What a training leaves in its folder, and how it is read back with its hashes checked.

```text
replicate-0/level-03-ticket/
    record.json              counts, seeds, history, versions, and the hashes of the files beside it
    mask.safetensors         which weights were kept
    weights.safetensors      the trained state
    rewind.safetensors       theta_k; only in the dense training, level 0
```
"""

import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from lottery_tickets._core.files import flush_to_disk, hash_file, read_json, write_json
from lottery_tickets._core.folders import hash_json, save_state
from lottery_tickets.experiments.plan import Training
from lottery_tickets.masks.mask import Mask

MASK: Final = "mask.safetensors"
WEIGHTS: Final = "weights.safetensors"
REWIND: Final = "rewind.safetensors"
RECORD: Final = "record.json"


def list_versions() -> dict[str, str]:
    """Returns the versions that decide the bits of a result."""
    packages = {name: version(name) for name in ("lottery-tickets", "torch", "numpy")}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def save_training(
    run: Path, training: Training, mask: Mask, states: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]
) -> None:
    """Writes the folder of a finished training, whole: filled aside, flushed, renamed.

    Args:
        run: The run folder.
        training: Which training.
        mask: Its mask.
        states: States by file name.
        facts: What its record says besides the hashes of the files.
    """
    folder = run / training.path
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    mask.save(aside / MASK)
    for name, state in states.items():
        save_state(aside / name, state)
    files = {path.name: hash_file(path) for path in sorted(aside.iterdir())}
    record = {"training": asdict(training), **facts, "files": files}
    write_json(aside / RECORD, {**record, "record_sha256": hash_json(record)})
    flush_to_disk(aside)
    aside.replace(folder)
    flush_to_disk(folder.parent)


def load_record(run: Path, training: Training) -> dict[str, Any]:
    """Returns the record of a training.

    Raises:
        ValueError: When it is missing, cut short, altered, or of another training.
    """
    path = run / training.path / RECORD
    record = read_json(path)
    content = (
        {name: value for name, value in record.items() if name != "record_sha256"} if isinstance(record, dict) else {}
    )
    if not content or record.get("record_sha256") != hash_json(content):
        message = f"{path} must match the hash it carries, but does not; it was altered after the training"
        raise ValueError(message)
    if content.get("training") != asdict(training):
        message = f"{path} must be the record of {training}, but speaks of {content.get('training')}; was it moved?"
        raise ValueError(message)
    return content


def load_mask(run: Path, training: Training) -> Mask:
    """Returns the mask of a training."""
    return Mask.load(run / training.path / MASK)


def is_finished(run: Path, training: Training) -> bool:
    """Returns whether a training is finished: its folder appears only when it is whole."""
    return (run / training.path).is_dir()

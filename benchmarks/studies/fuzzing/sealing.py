"""Hashes made anew after a change, so that what lies behind them is reached; of any folder, unlike `forging.seal`."""

import contextlib
import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch

from lottery_tickets._core.folders import HASH, STATE_HASH, hash_json
from lottery_tickets._core.states import hash_state

LABEL: Final = "lottery_tickets"
TIMES: Final = "seconds"
# A file that was changed may be anything: where no hash can be made, it stays as it is.
UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError, struct.error)


def seal(place: Path) -> bool:
    """Makes hashes anew, those of tensors first; returns whether there was any."""
    files = [path for path in place.rglob("*") if path.is_file()]
    sealed = [_try(_seal_tensors, path) for path in files if path.suffix == ".safetensors"]
    sealed += [_try(_seal_record, path) for path in files if path.name == "record.json"]
    sealed += [_try(_seal_json, path) for path in files if path.suffix == ".json"]
    return any(sealed)


def _try(make: Any, path: Path) -> bool:  # noqa: ANN401 - one of those below
    with contextlib.suppress(*UNREADABLE, safetensors.SafetensorError):
        return bool(make(path))
    return False


def _seal_tensors(path: Path) -> bool:
    content = path.read_bytes()
    [length] = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"]
    if STATE_HASH in metadata:
        metadata[STATE_HASH] = hash_state(safetensors.torch.load(content))
    elif LABEL in metadata:
        label = json.loads(metadata[LABEL])
        tensors = safetensors.torch.load(content)
        hashed = hashlib.sha256(label["content"].encode())
        for name in json.loads(label["content"])["shapes"]:
            hashed.update(tensors[name].numpy().data)
        metadata[LABEL] = json.dumps({**label, "sha256": hashed.hexdigest()})
    else:
        return False
    text = json.dumps(header).encode()
    return _write(path, struct.pack("<Q", len(text)) + text + content[8 + length :])


def _seal_record(path: Path) -> bool:
    record = json.loads(path.read_text(encoding="utf-8"))
    for name in record["files"]:
        if (path.parent / name).is_file():
            record["files"][name] = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
    history = path.parent / "history.json"
    if "history_sha256" in record and history.is_file():
        checks = json.loads(history.read_text(encoding="utf-8"))
        record["history_sha256"] = hash_json(
            [{name: value for name, value in check.items() if name != TIMES} for check in checks]
        )
    return _write(path, json.dumps(record).encode())


def _seal_json(path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    if HASH not in found:
        return False
    content = {name: value for name, value in found.items() if name != HASH}
    return _write(path, json.dumps({**content, HASH: hash_json(content)}).encode())


def _write(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    return True

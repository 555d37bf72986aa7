"""Hashes made anew after a change, so that what lies behind them is reached; of any folder, unlike `forging.seal`."""

import contextlib
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import Tensor

from lottery_tickets._core.folders import HASH, STATE_HASH, hash_json
from lottery_tickets._core.states import hash_state
from lottery_tickets.masks.mask_file import TICKET_PREFIX
from lottery_tickets.structured.exports.files import FORMAT as EXPORT
from lottery_tickets.tickets import STATE_PREFIX

Label = Mapping[str, Any]

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
        label, tensors = json.loads(metadata[LABEL]), safetensors.torch.load(content)
        seal_label = _seal_ticket if "mask" in label else _seal_export if label["format"] == EXPORT else _seal_mask
        metadata[LABEL] = json.dumps(seal_label(label, tensors))
    else:
        return False
    text = json.dumps(header).encode()
    return _write(path, struct.pack("<Q", len(text)) + text + content[8 + length :])


def _seal_mask(label: Label, tensors: Mapping[str, Tensor], prefix: str = "") -> Label:
    hashed = hashlib.sha256(label["content"].encode())
    for name in json.loads(label["content"])["shapes"]:
        hashed.update(tensors[f"{prefix}{name}"].numpy().data)
    return {**label, "sha256": hashed.hexdigest()}


def _seal_ticket(label: Label, tensors: Mapping[str, Tensor]) -> Label:
    """Returns what a ticket's file says of itself, with the hashes of its mask, of theta_k and of what it says."""
    mask, content = _seal_mask(label["mask"], tensors, TICKET_PREFIX), json.loads(label["content"])
    state = {name: tensors[f"{STATE_PREFIX}{content['ties'].get(name, name)}"] for name in content["state"]}
    text = json.dumps({**content, "state_sha256": hash_state(state), "mask_sha256": mask["sha256"]})
    return {**label, "mask": mask, "content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _seal_export(label: Label, tensors: Mapping[str, Tensor]) -> Label:
    """Returns what an export says of itself, with the hashes of its tensors and of what it says."""
    text = json.dumps({**json.loads(label["content"]), "state_sha256": hash_state(tensors)})
    return {**label, "content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


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
    if content.get("format") == EXPORT:
        hashes = {file.name: file for file in path.parent.iterdir() if file != path and file.is_file()}
        content["files"] = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in hashes.items()}
    return _write(path, json.dumps({**content, HASH: hash_json(content)}).encode())


def _write(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    return True

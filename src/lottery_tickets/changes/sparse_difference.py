"""A training as a file: which elements of which tensors it changed, and what they became. Base and file give the rest.

The file holds values as they are stored, and the hash of each tensor before and after: so it is applied to its base
alone, and what comes of it is proved equal.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lottery_tickets._core.reading import check_form, list_names
from lottery_tickets._core.states import view_clean_state
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets._core.weights import INTEGERS_BY_BYTES, READERS, Weight, Weights
from lottery_tickets.changes.differences import WEIGHTS_PER_BLOCK
from lottery_tickets.changes.gaps import pack_places, unpack_places
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.checkpoints.writing import Edit, Replacement

AllTensors = nn.Module | Mapping[str, Tensor] | CheckpointWeights

KEY: Final = "lottery_tickets_difference"
FORMAT: Final = "lottery-tickets difference 1"
FORM: Final = {"format": str, "tensors": {...: {"shape": [int], "dtype": str, "before": str, "after": str}}}
PLACES: Final = ":places"
VALUES: Final = ":values"


class DifferenceReport(TypedDict):
    """What `save_difference` returns.

    Attributes:
        num_elements: Of all tensors.
        num_changed: How many are stored with other bits.
        num_bytes: Of the file.
        num_bytes_after: Of all tensors after.
    """

    num_elements: int
    num_changed: int
    num_bytes: int
    num_bytes_after: int


class _Change(NamedTuple):
    """What became of one tensor: its hashes, and the elements that are others, their places packed."""

    before: str
    after: str
    places: NDArray[np.uint8]
    values: Tensor


def save_difference(before: AllTensors, after: AllTensors, path: str | Path) -> DifferenceReport:
    """Writes what a training changed as a file that gives `after` to whoever has `before`; returns its size.

    All tensors are compared bit for bit, -0.0 and NaN included, in blocks. The file is safetensors: of each tensor that
    changed the places, as gaps of mostly one byte, and the values, as stored.

    Args:
        before: A model, a state dict, or a `CheckpointWeights`.
        after: Likewise, with the same tensors.
        path: Where to; an existing file is replaced.

    Raises:
        OSError: When the place cannot be written.
        ValueError: When names, shapes or dtypes differ.

    Examples:
        >>> import tempfile
        >>> before, after = {"weight": torch.zeros(1000)}, {"weight": torch.zeros(1000)}
        >>> after["weight"][7] = 1.0
        >>> file = f"{tempfile.mkdtemp()}/difference.safetensors"
        >>> save_difference(before, after, file)["num_changed"]
        1
        >>> apply_difference(before, file)
        >>> torch.equal(before["weight"], after["weight"])
        True
    """
    first, second = _view(before), _view(after)
    _check_alike(first, second)
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(first, pool.map(lambda name: _compare(first[name], second[name]), first), strict=True))
    tensors: dict[str, Tensor] = {}
    for name, change in found.items():
        if len(change.places):
            tensors[name + PLACES] = torch.from_numpy(change.places)
            tensors[name + VALUES] = change.values
    described = {
        name: {
            "shape": list(first[name].shape),
            "dtype": str(first[name].dtype).removeprefix("torch."),
            "before": change.before,
            "after": change.after,
        }
        for name, change in found.items()
    }
    write_tensors(Path(path), tensors, {KEY: json.dumps({"format": FORMAT, "tensors": described})})
    return {
        "num_elements": first.num_weights,
        "num_changed": sum(len(change.values) for change in found.values()),
        "num_bytes": Path(path).stat().st_size,
        "num_bytes_after": sum(weight.size * weight.dtype.itemsize for weight in second.values()),
    }


def apply_difference(base: AllTensors, path: str | Path, *, output: str | Path | None = None) -> None:
    """Makes of the weights before those after, and proves by their hashes that they are; returns nothing.

    Nothing is changed where the base is another one. Of a checkpoint a copy is written; when it is stopped, the same
    call goes on.

    Args:
        base: A model or a state dict, whose tensors are changed in place; or a `CheckpointWeights`.
        path: That `save_difference` wrote.
        output: Of a checkpoint, where the copy goes: a folder, or a file where the checkpoint is one; there must be
            nothing yet.

    Raises:
        OSError: When a file cannot be read or written.
        TypeError: When a checkpoint has no `output`, or another base has one.
        ValueError: When the file is none, or altered; a tensor of the base is missing or not that before; or what comes
            of it is not that after.
    """
    if isinstance(base, CheckpointWeights) != (output is not None):
        raise TypeError("a checkpoint must have output=, where its copy goes; what is changed in place has none")
    described, edits = _read(Path(path))
    weights = _view(base)
    _check_hashes(weights, {name: tensor["before"] for name, tensor in described.items()}, "the base")
    after = {name: tensor["after"] for name, tensor in described.items()}
    if isinstance(base, CheckpointWeights):
        base.write_edited(dict(_part(base, weights, edits)), Path(str(output)))
        _check_hashes(_view(CheckpointWeights(Path(str(output)))), after, "the copy")
        return
    edited = {name: _edit(weights[name].tensor, edit) for name, edit in edits.items()}
    _check_hashes(Weights.from_tensors(edited), {name: after[name] for name in edited}, "what the file gives")
    with torch.no_grad():
        for name, tensor in edited.items():
            weights[name].tensor.copy_(tensor)


def _view(given: AllTensors) -> Weights:
    if isinstance(given, CheckpointWeights):
        return Weights(given.tensors.values())
    weights = Weights.from_tensors(view_clean_state(given) if isinstance(given, nn.Module) else dict(given))
    if weights.shards is not None:
        raise ValueError("a difference is of whole tensors, but these are sharded; give checkpoints")
    return weights


def _check_alike(before: Weights, after: Weights) -> None:
    if odd := sorted(before.keys() ^ after.keys()):
        raise ValueError(f"before and after must have the same tensors, but {list_names(odd)} are on one side only")
    for name, weight in before.items():
        found = after[name]
        if (found.shape, found.dtype) != (weight.shape, weight.dtype):
            raise ValueError(
                f"before and after must be alike, but {name!r} is {tuple(weight.shape)} in {weight.dtype} before and "
                f"{tuple(found.shape)} in {found.dtype} after"
            )


def _walk(weight: Weight) -> Iterator[tuple[int, Tensor]]:
    """Yields where blocks start, and their elements as integers of their own width."""
    for start, stop in weight.cut(WEIGHTS_PER_BLOCK):
        yield start, weight.read(start, stop).cpu().view(INTEGERS_BY_BYTES[weight.dtype.itemsize])


def _compare(before: Weight, after: Weight) -> _Change:
    hashed = hashlib.sha256(), hashlib.sha256()
    places, words = [np.empty(0, np.uint8)], [torch.empty(0, dtype=INTEGERS_BY_BYTES[before.dtype.itemsize])]
    last = -1
    for (start, old), (_, new) in zip(_walk(before), _walk(after), strict=True):
        hashed[0].update(old.numpy().data)
        hashed[1].update(new.numpy().data)
        changed = (old != new).nonzero().view(-1)
        places.append(pack_places(start + changed.numpy(), last))
        words.append(new[changed])
        last = start + int(changed[-1]) if len(changed) else last
    values = torch.cat(words).view(before.dtype)
    return _Change(hashed[0].hexdigest(), hashed[1].hexdigest(), np.concatenate(places), values)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Replacement]]:
    """Returns what a file says of all tensors, and the edits of those that changed."""
    tensors, metadata = read_tensors(path)
    try:
        content = json.loads(metadata.get(KEY, "null"))
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} must be a difference that save_difference wrote, but it is some other file")
    check_form(content, FORM, str(path))
    described: dict[str, Any] = content["tensors"]
    edits: dict[str, Replacement] = {}
    for name in (key.removesuffix(PLACES) for key in tensors if key.endswith(PLACES)):
        values, size = tensors.get(name + VALUES), torch.Size(described.get(name, {"shape": ()})["shape"]).numel()
        places = unpack_places(tensors[name + PLACES].view(-1).numpy())
        if name not in described or values is None or len(values) != len(places) or (places >= size).any():
            raise ValueError(f"{path} must give {name!r} as many values as places, inside of it; was it altered?")
        if str(values.dtype) != f"torch.{described[name]['dtype']}":
            raise ValueError(f"{path} must give {name!r} values of its dtype, but has {values.dtype}; was it altered?")
        edits[name] = Replacement(places, values.view(INTEGERS_BY_BYTES[values.element_size()]))
    changed = {name for name, tensor in described.items() if tensor["before"] != tensor["after"]}
    if edits.keys() != changed or len(tensors) != 2 * len(edits):
        raise ValueError(f"{path} must give places and values of what changed and of nothing else; was it altered?")
    return described, edits


def _check_hashes(weights: Weights, expected: Mapping[str, str], what: str) -> None:
    def find(name: str) -> str | None:
        if name not in weights:
            return None
        hashed = hashlib.sha256()
        for _, words in _walk(weights[name]):
            hashed.update(words.numpy().data)
        return hashed.hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(expected, pool.map(find, expected), strict=True))
    odd = [name for name, digest in expected.items() if found[name] != digest]
    if odd or weights.keys() != expected.keys():
        names = odd or sorted(weights.keys() ^ expected.keys())
        raise ValueError(
            f"{what} must be what the difference says, tensor by tensor, but {list_names(names)} differ; take the base "
            "that it was made of, in its own dtype, and a file that is whole"
        )


def _edit(tensor: Tensor, edit: Edit) -> Tensor:
    """Returns a tensor edited, as a copy."""
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    edit.apply(copy.view(-1).view(INTEGERS_BY_BYTES[copy.element_size()]), 0)
    return copy


def _part(
    base: CheckpointWeights, weights: Weights, edits: Mapping[str, Replacement]
) -> Iterator[tuple[str, Replacement]]:
    """Yields edits by the names of tensors in the files: of a weight that lies in many, the part of each."""
    parts = base.find_places({name: weights[name].shape for name in edits})
    for name, edit in edits.items():
        start = 0
        for part in parts[name]:
            stop = start + base.entries[part][1].size
            first, last = np.searchsorted(edit.places, [start, stop])
            yield part, Replacement(edit.places[first:last] - start, edit.words[first:last])
            start = stop

"""What an export is on disk: a folder of transformers, or a safetensors file, each with a label that is checked.

A packed export is the file of a mask that names its base, and has no label of its own.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.files import hash_file, parse_json
from lottery_tickets._core.folders import read_hashed, write_hashed
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.reading import check_form, list_names, make_form, naming
from lottery_tickets._core.states import copy_clean_state, hash_state, view_clean_state
from lottery_tickets._core.tensor_files.headers import read_header
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets.checkpoints.base import BASE, check_base
from lottery_tickets.checkpoints.layout import INDEX, find_layout
from lottery_tickets.checkpoints.writing import WEIGHT_FORMATS
from lottery_tickets.masks.holding import apply_mask, remove_mask
from lottery_tickets.masks.mask import Mask
from lottery_tickets.masks.mask_file import FORMAT as MASK_FORMAT
from lottery_tickets.masks.mask_file import METADATA_KEY
from lottery_tickets.structured.cutting import Cuts, cut_modules, find_aliases
from lottery_tickets.structured.decoders import find_model_type
from lottery_tickets.structured.exports.architectures import (
    ARCHITECTURE,
    Architecture,
    check_architecture,
    describe_architecture,
)
from lottery_tickets.structured.exports.semi_structured import compress, to_dense
from lottery_tickets.structured.shrinking import ShrinkReport
from lottery_tickets.workloads.language import check_num_layers, reading

FORMAT: Final = "lottery-tickets export 1"
LABEL: Final = "export.json"  # of a folder, in it


class Label(TypedDict):
    """What an export says of itself.

    Attributes:
        format: Ours, and its version.
        form: Of the export.
        model: The class of the dense model.
        state_sha256: Of the state that is loaded, see `hash_state`.
        compressed: Weights that are 2:4 once they are loaded.
        architecture: What the dense model is besides its tensors.
        dense: Of a file the shapes of the dense network's tensors.
        left: Of a file which indices are left of each tensor that is cut, by its dimensions.
        files: Of a folder the SHA-256 of each file.
    """

    format: str
    form: str
    model: str
    state_sha256: str
    compressed: list[str]
    architecture: Architecture
    dense: dict[str, list[int]]
    left: dict[str, dict[str, list[int]]]
    files: dict[str, str]


@final
@dataclass(frozen=True, eq=False)
class Made:
    """What is exported.

    Attributes:
        model: The model, whose state is written; of what is packed the masked one.
        form: Of the export.
        compressed: Weights that are 2:4 once they are loaded.
        left: Which indices are left of each tensor that is cut, by its dimensions.
        report: Of shrinking; None of other forms.
    """

    model: nn.Module
    form: str
    compressed: tuple[str, ...] = ()
    left: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)
    report: ShrinkReport | None = None


def is_folder(model: nn.Module) -> bool:
    """Returns whether exports of a model are folders: of transformers' models, but for what is packed."""
    return find_model_type(model) is not None and hasattr(model, "save_pretrained")


def prune_copy(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """Returns a copy of a model whose pruned weights are zero, and that no mask is held on."""
    pruned = copy.deepcopy(model)
    remove_mask(pruned)
    apply_mask(pruned, mask)
    return pruned


def write_export(made: Made, place: Path, dense: nn.Module, base: Path | None) -> None:
    """Writes a model with its label; returns nothing.

    Args:
        made: The model, and what is said of it.
        place: A folder that is there, for a model of transformers; else a file.
        dense: The model that it was made of.
        base: The checkpoint of that, whose other files a folder is given too.
    """
    state = copy_clean_state(made.model)
    label: Label = {
        "format": FORMAT, "form": made.form, "model": type(dense).__name__, "state_sha256": hash_state(state),
        "compressed": list(made.compressed), "architecture": describe_architecture(dense),
        "dense": {}, "left": {}, "files": {},
    }  # fmt: skip
    if place.is_dir():
        save: Any = made.model
        save.save_pretrained(place)
        if base is not None:
            _copy_others(base, place)
        write_hashed(place / LABEL, {**label, "files": _list_hashes(place)})
        return
    label["dense"] = {name: list(tensor.shape) for name, tensor in view_clean_state(dense).items()}
    label["left"] = {
        name: {str(dim): indices.tolist() for dim, indices in dims.items()} for name, dims in made.left.items()
    }
    content = json.dumps(label)
    said = {"format": FORMAT, "content": content, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    write_tensors(place, state, {METADATA_KEY: json.dumps(said)})


def load_export(model: nn.Module, path: str | Path) -> nn.Module:
    """Returns the model of an export, after its files were compared with the hashes that they carry.

    Args:
        model: A network of the dense architecture, which stays as it is: for a file or a folder one with any weights,
            for a packed export the base that it names. What is loaded lies on its device, in the dtypes of the export.
        path: The file or the folder that `export_model` wrote.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is altered, cut short, no export, or one of another network or base: of other shapes, or one
            that computes otherwise, such as with another activation.

    Warns:
        UserWarning: When it was made with other versions of Python, torch or transformers, and it cannot be told
            whether the network computes otherwise.

    Examples:
        >>> import tempfile
        >>> from lottery_tickets import export_model
        >>> model, batch = nn.Sequential(nn.Linear(2, 2)), (torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))
        >>> mask = {"0.weight": torch.tensor([[True, False], [True, True]])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_model(model, mask, f"{folder}/dense.safetensors", batch, form="dense")
        ...     loaded = load_export(nn.Sequential(nn.Linear(2, 2)), f"{folder}/dense.safetensors")
        >>> loaded[0].weight[0, 1].item()
        0.0
    """
    inner, place = unwrap(model), Path(path)
    if place.is_dir():
        label = _read_folder_label(place)
        loaded = _load_folder(inner, place, label)
    else:
        tensors, metadata = read_tensors(place)
        said = _read_said(place, metadata)
        if said["format"] == MASK_FORMAT:
            mask = Mask.from_file(place, tensors, metadata)
            with naming(place, "be a mask for this model"):
                check_base(inner, mask)
            if ARCHITECTURE in mask.provenance:  # not where `mask create --name-base` made it, which knows no network
                check_form(mask.provenance[ARCHITECTURE], make_form(Architecture), str(place))
                check_architecture(inner, mask.provenance[ARCHITECTURE], place)
            return prune_copy(inner, mask)
        label = _read_file_label(place, said)
        loaded = _build(inner, place, tensors, label)
    if hash_state(view_clean_state(loaded)) != label["state_sha256"]:
        raise ValueError(f"{place} must hold the weights that it has the hash of, but does not; it was altered")
    compress(loaded, label["compressed"])
    return loaded


def copy_dense_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a model, with the zeros of weights that are 2:4, on the CPU."""
    return {name: to_dense(tensor).detach().cpu() for name, tensor in view_clean_state(model).items()}


def is_export(place: Path) -> bool:
    """Returns whether a file, or a folder with all that is in it, was written by `export_model`."""
    try:
        if place.is_dir():
            names = _read_folder_label(place)["files"].keys() | {LABEL}
            return {entry.name for entry in place.iterdir()} <= names
        metadata = read_header(place).metadata
        said = _read_said(place, metadata)
        return said["format"] == FORMAT or BASE in parse_json(said["content"])["provenance"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _copy_others(base: Path, place: Path) -> None:
    """Copies what lies beside the weights of a checkpoint, such as a tokenizer, where there is nothing of its name."""
    for other in find_layout(base).others:
        known = other.suffix in WEIGHT_FORMATS or other.name in {INDEX, LABEL} or (place / other.name).exists()
        if not known:
            shutil.copyfile(other, place / other.name)


def _list_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a folder but for the label."""
    return {file.name: hash_file(file) for file in sorted(folder.iterdir()) if file.name != LABEL}


def _read_said(place: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a safetensors file says of itself under our key."""
    with naming(place, "be an export that export_model wrote"):
        said = parse_json(metadata.get(METADATA_KEY, "{}"))
        check_form(said, {"format": str, ...: object}, "its label")
        if said["format"] not in {FORMAT, MASK_FORMAT}:
            raise ValueError(f"it is {said['format']!r}; name another file")
    return dict(said)


def _read_file_label(place: Path, said: Mapping[str, Any]) -> Label:
    with naming(place, "be an export that export_model wrote"):
        check_form(said, {"format": str, "content": str, "sha256": str}, "its label")
        label: Label = parse_json(said["content"])
        check_form(label, make_form(Label), "its label")
    if hashlib.sha256(said["content"].encode()).hexdigest() != said["sha256"]:
        raise ValueError(f"{place} must match the hash it carries, but does not; it was altered after it was written")
    return label


def _read_folder_label(place: Path) -> Label:
    label: Any = read_hashed(place / LABEL)
    check_form(label, make_form(Label), str(place / LABEL))
    if label["format"] != FORMAT:
        raise ValueError(
            f"{place} is {label['format']!r}, but this version of lottery-tickets knows {FORMAT!r}; update"
        )
    found: Label = label
    return found


def _load_folder(model: nn.Module, place: Path, label: Label) -> nn.Module:
    """Returns the model of a folder whose files are as they were written."""
    found = _list_hashes(place)
    if odd := [name for name, digest in label["files"].items() if found.get(name) != digest]:
        raise ValueError(f"{place} must be as it was written, but {list_names(odd)} changed or went; export again")
    if type(model).__name__ != label["model"] or not is_folder(model):
        raise ValueError(
            f"{place} is of a {label['model']}, but the model is a {type(model).__name__}; pass one of that class"
        )
    check_architecture(model, label["architecture"], place)
    build: Any = type(model)
    check_num_layers(place)
    with torch.random.fork_rng(devices=[]), reading(place, "configuration and weights"):
        loaded: nn.Module = build.from_pretrained(place, dtype="auto", local_files_only=True)
    return loaded.to(next(model.parameters()).device)


def _build(model: nn.Module, place: Path, tensors: Mapping[str, Tensor], label: Label) -> nn.Module:
    """Returns a network of a file's weights, made of one of the dense architecture.

    Raises:
        ValueError: When the network is of another architecture.
    """
    own = view_clean_state(model)
    shapes = {name: list(tensor.shape) for name, tensor in own.items()}
    if shapes != label["dense"]:
        names = sorted(shapes.keys() | label["dense"].keys())
        odd = [name for name in names if shapes.get(name) != label["dense"].get(name)]
        raise ValueError(
            f"{place} is of a network that differs from this {type(model).__name__} in {len(odd)} of {len(names)} "
            f"tensors ({list_names(odd)}); pass a network of the dense architecture"
        )
    check_architecture(model, label["architecture"], place)
    aliases = find_aliases(model)
    state = {name: tensor.to(own[name].device) for name, tensor in tensors.items() if name in own}
    with naming(place, "hold the tensors that its label says"):
        left = {name: {int(dim): torch.tensor(at) for dim, at in dims.items()} for name, dims in label["left"].items()}
        for name, shape in shapes.items():
            sizes = {dim: len(at) for dim, at in left.get(aliases[name], {}).items()}
            wanted = [sizes.get(dim, size) for dim, size in enumerate(shape)]
            if name not in state or list(state[name].shape) != wanted:
                raise ValueError(f"{name!r} is none of shape {wanted}; it was altered")
    return cut_modules(model, state, Cuts(left, aliases))

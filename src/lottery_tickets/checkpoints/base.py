"""A ticket beside its base model: a mask that names the checkpoint it was made of, tensor by tensor.

The mask's file is all there is: who has the base applies it there, and a base in which one bit differs is refused.
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import torch
from torch import Tensor, nn

from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.reading import check_form, list_names
from lottery_tickets._core.tensor_files.shards import StoredWeight
from lottery_tickets._core.weights import READERS
from lottery_tickets.masks.mask import Mask, as_mask

BASE: Final = "base"  # in a mask's provenance
BASE_FORM: Final = {"model": str, "revision": (str, None), "sha256": {...: str}}


def describe_base(model: str, revision: str | None, tensors: Mapping[str, StoredWeight]) -> dict[str, Any]:
    """Returns what a mask says of its base: name, revision, and the hash of each tensor's bytes."""
    return {"model": model, "revision": revision, "sha256": _hash_stored(tensors, list(tensors))}


def check_stored_base(mask: Mask, model: str, tensors: Mapping[str, StoredWeight]) -> None:
    """Raises where a mask names another base than a checkpoint; does nothing where it names none.

    Raises:
        ValueError: When a tensor is missing or differs.
    """
    if BASE in mask.provenance:
        _check(mask, model, lambda names: _hash_stored(tensors, [name for name in names if name in tensors]))


def check_base(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Raises where a model's weights are not those that a mask was made for; returns nothing.

    Args:
        model: As it was loaded, in the dtype of its checkpoint: to have other bits is to be another base.
        mask: That `CheckpointWeights.name_base` gave.

    Raises:
        ValueError: When the mask names no base, or a tensor of the model is missing or differs.
    """
    checked = as_mask(mask)
    if BASE not in checked.provenance:
        raise ValueError("the mask must name its base, but does not; CheckpointWeights.name_base makes one that does")
    inner = unwrap(model)
    state = {clean_name(name): value for name, value in inner.state_dict().items()}
    _check(checked, type(inner).__name__, lambda names: {name: _hash(state[name]) for name in names if name in state})


def _check(mask: Mask, model: str, hash_all: Callable[[list[str]], Mapping[str, str]]) -> None:
    base = mask.provenance[BASE]
    check_form(base, BASE_FORM, "the base that the mask names")
    said: dict[str, str] = base["sha256"]
    found = hash_all(list(said))
    if odd := [name for name, digest in said.items() if found.get(name) != digest]:
        revision = f" in revision {base['revision']}" if base["revision"] else ""
        raise ValueError(
            f"the mask is for {base['model']}{revision}, but in {model} {list_names(odd)} "
            f"{'is' if len(odd) == 1 else 'are'} not the same; take that checkpoint, in its own dtype and untrained"
        )


def _hash_stored(tensors: Mapping[str, StoredWeight], names: list[str]) -> dict[str, str]:
    def hash_one(name: str) -> str:
        hashed = hashlib.sha256()
        for block in tensors[name].walk():
            hashed.update(block.data)
        return hashed.hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(hash_one, names), strict=True))


def _hash(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()

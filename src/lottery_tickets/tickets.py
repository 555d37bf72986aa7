"""Tickets in one file: the mask, the weights it is trained from, where both are from, and what was shown of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lottery_tickets._core.files import parse_json
from lottery_tickets._core.names import clean_name, identify, unwrap
from lottery_tickets._core.notebooks import render_table
from lottery_tickets._core.reading import list_names
from lottery_tickets._core.states import hash_state, load_clean_state
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets.masks.fitting import find_masked_parameters
from lottery_tickets.masks.holding import hold_mask, remove_mask
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.masks.mask_file import METADATA_KEY, TICKET_FORMAT, TICKET_PREFIX

STATE_PREFIX: Final = "state."
NO_CLAIMS: Final = "no claims: never trained beside its controls"
CLAIM: Final = "sentences"  # what claims must have


@final
@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse network that can be trained: which weights are kept, and what all start from.

    A ticket holds the tensors it is given and copies none.

    Attributes:
        mask: By parameter name, True where a weight is kept; any mapping of 0/1 tensors, kept as a `Mask`.
        state: theta_k: parameters and buffers by name, as in `model.state_dict()`, before pruning. Of a ticket that was
            loaded without weights they are on the meta device: shapes and dtypes without values.
        step: k, the steps (or epochs, with a trainer of one's own) that theta_k has been trained for; 0 for fresh or
            pretrained weights.
        provenance: How the ticket was made; JSON-able.
        claims: What was shown of it, JSON-able, with `sentences`, a list; None where nothing was.
        state_sha256: The hash of theta_k, see `hash_state`; computed when not given.

    Raises:
        TypeError: When mask or state are no mappings of tensors, or a part cannot be written as JSON.
        ValueError: When the mask does not fit the state, `step` is negative, or a number is not finite.

    Examples:
        >>> state = nn.Linear(2, 1).state_dict()
        >>> Ticket({"weight": torch.tensor([[True, False]])}, state)
        Ticket(2 tensors at step 0, 1 of 2 weights kept, sparsity 0.5000, no claims: never trained beside its controls)
    """

    mask: Mask
    state: Mapping[str, Tensor]
    step: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] | None = None
    state_sha256: str = ""

    def __post_init__(self) -> None:
        mask = as_mask(self.mask)
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "state", _check_state(self.state))
        if type(self.step) is not int or self.step < 0:
            raise ValueError(f"the step of theta_k must be a whole number from 0 on, but got {self.step!r}")
        for name in ("provenance", "claims"):
            if not isinstance(getattr(self, name) or {}, Mapping):
                raise TypeError(f"{name} of a ticket must be a mapping, but got {type(getattr(self, name)).__name__}")
            json.dumps(getattr(self, name), allow_nan=False, default=_refuse)
        if self.claims is not None and not _is_list_of_words(self.claims.get(CLAIM)):
            raise ValueError(f"claims must have {CLAIM!r}, a list of sentences, but have {sorted(self.claims)}")
        for name, shape in mask.shapes.items():
            if name not in self.state:
                raise ValueError(f"theta_k must have every weight of the mask, but lacks {name!r}; pass a state dict")
            if self.state[name].shape != shape:
                shapes = f"{tuple(self.state[name].shape)} in theta_k and {tuple(shape)} in the mask"
                raise ValueError(f"theta_k must fit the mask, but {name!r} has shape {shapes}; are they of one model?")
        if not self.state_sha256:
            self.check_has_weights()
            object.__setattr__(self, "state_sha256", hash_state(self.state))

    def __repr__(self) -> str:
        counts = f"{self.mask.num_kept:,} of {self.mask.num_weights:,} weights kept, sparsity {self.mask.sparsity:.4f}"
        return f"Ticket({len(self.state)} tensors at step {self.step}, {counts}, {self.claim})"

    def _repr_html_(self) -> str:
        told = {"weights": self.mask, "theta_k": f"{len(self.state)} tensors, step {self.step}", "claims": self.claim}
        rows = {**told, **{str(name): value for name, value in self.provenance.items()}}
        return render_table("Ticket", ("part", "what it is"), [(n, str(v)[:200]) for n, v in rows.items()], len(rows))

    @property
    def claim(self) -> str:
        """What was shown of it, in a sentence."""
        return NO_CLAIMS if self.claims is None else str(next(iter(self.claims[CLAIM]), NO_CLAIMS))

    def with_provenance(self, further: Mapping[str, Any]) -> Self:
        """Returns the ticket with further provenance."""
        return replace(self, provenance={**self.provenance, **further})

    def with_claims(self, claims: Mapping[str, Any]) -> Self:
        """Returns the ticket with these claims."""
        return replace(self, claims=claims)

    @property
    def has_weights(self) -> bool:
        """Whether theta_k is here, and not in the file alone."""
        return all(tensor.device.type != "meta" for tensor in self.state.values())

    def check_has_weights(self) -> None:
        """Raises a ValueError where theta_k is not here."""
        if not self.has_weights:
            lacking = [name for name, tensor in self.state.items() if tensor.device.type == "meta"]
            raise ValueError(
                f"theta_k must be there, but {list_names(lacking)} are on the meta device, without values; load the "
                "ticket with weights=True"
            )

    def save(self, path: str | Path) -> None:
        """Writes the ticket as one safetensors file, whole: bits, theta_k bit for bit, and the hashes of all parts.

        Names of one tensor, such as tied weights, have one copy of it. Equal tickets give equal bytes.

        Args:
            path: Where to; an existing file is replaced, as `Mask.save` does.
        """
        self.check_has_weights()
        firsts: dict[object, str] = {}
        ties = {name: firsts.setdefault(identify(tensor), name) for name, tensor in self.state.items()}
        ties = {name: first for name, first in ties.items() if name != first}
        stored = {name: tensor for name, tensor in self.state.items() if name not in ties}
        content = json.dumps(
            {
                "step": self.step,
                "provenance": self.provenance,
                "claims": self.claims,
                "state": {name: [str(t.dtype), list(t.shape)] for name, t in self.state.items()},
                "ties": ties,
                "state_sha256": self.state_sha256,
                "mask_sha256": self.mask.digest,
            },
            allow_nan=False,
        )
        label = {"format": TICKET_FORMAT, "mask": self.mask.to_label(), "content": content, "sha256": _hash(content)}
        bits = {f"{TICKET_PREFIX}{name}": packed for name, packed in self.mask.bits.items()}
        weights = {f"{STATE_PREFIX}{name}": tensor for name, tensor in stored.items()}
        # One metadata key, as in a mask's file: safetensors writes several in no fixed order.
        write_tensors(Path(path), {**bits, **weights}, {METADATA_KEY: json.dumps(label)})

    @classmethod
    def load(cls, path: str | Path, *, weights: bool = True) -> Self:
        """Returns the ticket that `save` wrote; nothing in the file is run.

        Tensors are views of the file, which is read where they are, so there is never a second copy of theta_k.

        Args:
            path: The file.
            weights: Whether to load theta_k and compare it with its hash. If not, the file may be larger than the
                memory; the ticket then has the mask and all else, see `Ticket`.

        Raises:
            OSError: When there is no such file, or it cannot be read.
            ValueError: When the file is cut short, altered, or not a ticket.
        """
        tensors, metadata = read_tensors(Path(path), only="" if weights else TICKET_PREFIX)
        label = _read_label(path, metadata)
        mask = Mask.from_file(path, tensors, metadata)
        try:
            content = parse_json(label["content"])
            whole = label["sha256"] == _hash(label["content"]) and content["mask_sha256"] == mask.digest
            state = _collect_state(tensors, content["state"], content["ties"])
            ticket = cls(
                mask,
                state,
                content["step"],
                content["provenance"],
                content["claims"],
                _check_hash(content["state_sha256"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} must hold a ticket, but: {_tell(error)}; was it altered?") from error
        if not whole:
            raise ValueError(f"{path} must match the hashes it carries, but does not; it was altered")
        if weights and hash_state(state) != ticket.state_sha256:
            raise ValueError(f"{path} must hold the weights that it has the hash of, but does not; theta_k was altered")
        return ticket


def save_ticket(
    path: str | Path,
    mask: Mapping[str, Tensor],
    model_or_state: nn.Module | Mapping[str, Tensor],
    *,
    step: int = 0,
    provenance: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> None:
    """Writes a ticket as one safetensors file: mask, theta_k, provenance, hashes, claims; returns nothing.

    Tickets of `compute_iterative_magnitude_pruning` have a `save_ticket` of their own, which fills in all of this.

    Args:
        path: Where to; an existing file is replaced.
        mask: By parameter name, True where a weight is kept.
        model_or_state: theta_k: a model that has it now, or its `state_dict()`, with all that the model needs to start.
        step: k, the steps that theta_k has been trained for.
        provenance: How the ticket was made: method, seeds, recipe, versions. JSON-able.
        claims: What was shown of it, see `Ticket`; None when nothing was.

    Raises:
        TypeError: When a part is of a type that cannot be written.
        ValueError: When the mask does not fit theta_k, or a number is not finite.

    Examples:
        >>> import tempfile
        >>> model = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_ticket(f"{folder}/ticket.safetensors", {"weight": torch.tensor([[True, False]])}, model)
        ...     load_ticket(f"{folder}/ticket.safetensors").mask.num_kept
        1
    """
    is_model = isinstance(model_or_state, nn.Module)
    state = unwrap(model_or_state).state_dict() if isinstance(model_or_state, nn.Module) else model_or_state
    clean = {clean_name(str(name)): value for name, value in state.items()} if is_model else state
    Ticket(as_mask(mask), clean, step, provenance or {}, claims).save(path)


def load_ticket(path: str | Path, *, weights: bool = True) -> Ticket:
    """Returns the ticket in a file, checked against its hashes; nothing in the file is run.

    Args:
        path: The file.
        weights: Whether to load theta_k too, see `Ticket.load`.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When the file is cut short, altered, or not a ticket.
    """
    return Ticket.load(path, weights=weights)


def use_ticket(model: nn.Module, path: str | Path | Ticket, *, weights: bool = True, cast: bool = False) -> Ticket:
    """Loads theta_k into a model and holds the mask on it; returns the ticket. Train the model then as you like.

    Everything is checked before anything is written: where something does not fit, the model is as it was.

    Args:
        model: Of the ticket's architecture, on any device; compiled or in data parallel, too. A mask that it was held
            to is let go.
        path: The file, or what `load_ticket` returned.
        weights: Whether to load theta_k; if not, only the mask is held, on the weights that the model has.
        cast: Whether theta_k may be rounded to the model's dtypes where they differ from its own.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        TypeError: When a weight of the model is not a plain tensor, such as one that is sharded over devices.
        ValueError: When names, shapes or dtypes of model and ticket differ, or the file is not a whole ticket.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> start = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
        >>> ticket = Ticket({"weight": torch.tensor([[True, False]])}, start)
        >>> use_ticket(model, ticket).mask.num_kept, model.weight.tolist()
        (1, [[1.0, 0.0]])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}; its first argument is it")
    ticket = path if isinstance(path, Ticket) else load_ticket(path, weights=weights)
    if weights:
        ticket.check_has_weights()
        _check_fits(model, ticket.state, cast=cast)
    find_masked_parameters(model, ticket.mask)
    remove_mask(model)
    if weights:
        load_clean_state(model, ticket.state)
    hold_mask(model, ticket.mask)
    return ticket


def _check_state(state: object) -> dict[str, Tensor]:
    """Returns a state under clean names."""
    if not isinstance(state, Mapping):
        raise TypeError(f"theta_k must be a mapping of tensors by name, but got {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kinds = f"{type(name).__name__} to {type(value).__name__}"
            raise TypeError(f"theta_k must map names to tensors, but {name!r} maps {kinds}; pass model.state_dict()")
        if type(value.data) is not Tensor:
            raise TypeError(f"{name!r} must be a plain tensor, but is a {type(value.data).__name__}; gather it first")
        if value.layout != torch.strided:
            raise ValueError(f"theta_k must consist of dense tensors, but {name!r} is {value.layout}")
    return {clean_name(name): value.detach() for name, value in state.items()}


def _check_fits(model: nn.Module, state: Mapping[str, Tensor], *, cast: bool) -> None:
    """Raises where theta_k cannot be loaded into a model."""
    own: dict[str, Any] = {clean_name(name): value for name, value in unwrap(model).state_dict(keep_vars=True).items()}
    odd = sorted(name for name, value in own.items() if not isinstance(value, Tensor))
    if odd:
        raise ValueError(f"a model's state must consist of tensors, but {list_names(odd)} do not; drop get_extra_state")
    empty = [name for name, value in own.items() if is_lazy(value) or value.device.type == "meta"]
    shared = [name for name in state if name in own and name not in empty]
    problems = {
        "the model lacks": [name for name in state if name not in own],
        "the ticket lacks": [name for name in own if name not in state],
        "shapes differ of": [
            f"{name} ({tuple(state[name].shape)} there, {tuple(own[name].shape)} in the model)"
            for name in shared
            if state[name].shape != own[name].shape
        ],
        "the model has no values yet for": empty,
    }
    if told := [f"{what} {list_names(names)}" for what, names in problems.items() if names]:
        raise ValueError(
            f"theta_k must fit the model, but {'; '.join(told)}; is the model of the ticket's architecture?"
        )
    if not cast and (other := [name for name in shared if state[name].dtype != own[name].dtype]):
        name = other[0]
        raise ValueError(
            f"theta_k must have the model's dtypes, but {list_names(other)} differ: {state[name].dtype} in the ticket "
            f"and {own[name].dtype} in the model; convert the model, or pass cast=True to round theta_k"
        )


def _read_label(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        label = parse_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise ValueError(f"{path} must hold a ticket, but its label is not JSON: {error}; was it altered?") from error
    found = label.get("format") if isinstance(label, dict) else label
    if found == TICKET_FORMAT:
        return dict(label)
    if isinstance(found, str) and found.startswith("lottery-tickets mask"):
        raise ValueError(
            f"{path} must be a ticket, but is a mask alone, without weights to start from; load it by Mask.load, and "
            "hold it by hold_mask"
        )
    if isinstance(found, str) and found.startswith("lottery-tickets ticket"):
        raise ValueError(f"{path} is {found!r}, but this version of lottery-tickets knows {TICKET_FORMAT!r}; update")
    raise ValueError(f"{path} must be a ticket that save_ticket wrote, but it is some other safetensors file")


def _collect_state(
    tensors: Mapping[str, Tensor], described: Mapping[str, Any], ties: Mapping[str, str]
) -> dict[str, Tensor]:
    """Returns theta_k in the order of its description.

    Raises:
        ValueError: When parts are missing, others than described, or not described.
    """
    stored = {name.removeprefix(STATE_PREFIX): t for name, t in tensors.items() if name.startswith(STATE_PREFIX)}
    missing = [name for name in described if ties.get(name, name) not in stored]
    foreign = [name for name in tensors if not name.startswith((STATE_PREFIX, TICKET_PREFIX))]
    foreign += [name for name in stored if name not in described]
    if missing or foreign:
        told = [f"it lacks {list_names(missing)}"] if missing else []
        told += [f"it has {list_names(foreign)} too many"] if foreign else []
        raise ValueError(" and ".join(told))
    state = {name: stored[ties.get(name, name)] for name in described}
    odd = [name for name, tensor in state.items() if [str(tensor.dtype), list(tensor.shape)] != described[name]]
    if odd:
        raise ValueError(f"{list_names(odd)} have another dtype or shape than it says")
    return state


def _check_hash(sha256: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"the hash of theta_k must be 64 hexadecimal digits, but is {sha256!r}")
    return sha256


def _tell(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _is_list_of_words(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _refuse(value: object) -> None:
    raise TypeError(f"provenance and claims of a ticket must be JSON values, but hold a {type(value).__name__}")


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()

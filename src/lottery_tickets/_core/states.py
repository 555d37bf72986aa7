"""The state of a model: a copy of its tensors by name, the hash of them, and their way back."""

import hashlib
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.reading import list_names, show_name
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.shards import see_whole


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers by name, on the CPU, sharing no memory with the model.

    Names of one tensor, such as tied weights, have one copy of it.

    Raises:
        TypeError: When a module keeps something other than tensors in its state.
    """
    state = model.state_dict()
    odd = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if odd:
        raise TypeError(
            f"a model's state must consist of tensors, but {odd} do not; drop get_extra_state from the model"
        )
    places = {name: _locate(tensor, name) for name, tensor in state.items()}
    copies: dict[object, Tensor] = {}
    for name, place in places.items():
        if place not in copies:
            copies[place] = state[name].detach().to("cpu", copy=True)
    return {name: copies[place] for name, place in places.items()}


def copy_clean_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy as `copy_state` does, under the names that a model has which nobody compiled or wrapped."""
    return {clean_name(name): tensor for name, tensor in copy_state(unwrap(model)).items()}


def view_clean_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state where it lies, under such names."""
    return {clean_name(name): tensor for name, tensor in unwrap(model).state_dict().items()}


def find_ties(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns the names of tensors that stand in a state under an earlier name too, with that name."""
    firsts: dict[int, str] = {}
    names = {name: firsts.setdefault(id(tensor), name) for name, tensor in state.items()}
    return {name: first for name, first in names.items() if name != first}


def is_same_tensor(first: Tensor, second: Tensor) -> bool:
    """Returns whether two tensors have one dtype, shape and values."""
    return first.dtype == second.dtype and torch.equal(first, second)


def _locate(tensor: Tensor, name: str) -> object:
    """Returns where a tensor lies, which is its name where it lies nowhere."""
    local = see_local(tensor)
    if not local.numel():
        return name
    return local.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of names, dtypes, shapes and bits, in hexadecimal; the order of the names does not matter.

    Of tensors that are shared out over processes (DTensor), which all call this, it is that of the whole: one tensor
    after the other is gathered.
    """
    see, hashed = see_whole(state), StateHash()
    for name in sorted(state):
        hashed.add(name, see(name))
    return hashed.hexdigest()


@final
class StateHash:
    """What `hash_state` returns of a state whose tensors are not all there at a time; they come in order of names."""

    def __init__(self) -> None:
        self._hashed = hashlib.sha256()

    def add(self, name: str, whole: Tensor) -> None:
        """Takes the next tensor."""
        tensor = whole.detach().cpu().contiguous()
        self._hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        self._hashed.update(tensor.view(-1).view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        """Returns the hash of those so far."""
        return self._hashed.hexdigest()


def find_returned_model(model: nn.Module, returned: object) -> nn.Module | None:
    """Returns the model that a trainer gave back, inside what torch.compile wrapped around it; None for its own one."""
    inner = getattr(returned, "_orig_mod", returned)
    if not isinstance(inner, nn.Module) or returned is model or inner is model:
        return None
    return inner


def load_returned_model(model: nn.Module, returned: nn.Module) -> dict[str, Tensor]:
    """Loads the weights of a model that a trainer gave back; returns them, on the CPU.

    Raises:
        ValueError: When they do not fit.
    """
    state = copy_state(returned)
    try:
        load_clean_state(model, state)
    except ValueError as error:
        message = f"trainer_fn must return the model it is given, a copy of it or None, but {error}"
        raise ValueError(message) from error
    return state


def load_clean_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a state into a model; the names of either may hold what torch.compile puts into them.

    Names that the model does not have are left out.

    Raises:
        ValueError: When the state lacks a name or has a tensor of another shape; says which.
    """
    clean = {clean_name(name): tensor for name, tensor in state.items()}
    inner = unwrap(model)
    names = {name: clean_name(name) for name in inner.state_dict()}
    load_whole_state(inner, {name: clean[known] for name, known in names.items() if known in clean})


def load_whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a state that must have each tensor of the model, of its shape, and no other; dtypes are converted.

    Raises:
        ValueError: When it does not fit; says in one line what it lacks, what it has besides, and what is of another
            shape.
    """
    own = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in own.items() if isinstance(value, Tensor)}
    odd = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    found = {
        "lack": [name for name in own if name not in state],
        "have besides": [name for name in state if name not in own],
        "have of other shapes": odd,
    }
    if problems := [f"{what} {len(names)} ({list_names(names)})" for what, names in found.items() if names]:
        raise ValueError(
            f"of the {len(own)} tensors of {type(model).__name__} these weights {', '.join(problems)}; are they of "
            "another model?"
        )
    model.load_state_dict(dict(state))


def pick_at_most_one(state: Mapping[str, Tensor], name: str) -> float | None:
    """Returns the number that a float64 tensor of a saved state holds, None where it is empty.

    Raises:
        ValueError: When it is not there, or another tensor.
    """
    size = min(1, state[name].numel()) if name in state else 0
    values = pick(state, name, torch.zeros(size, dtype=torch.float64)).tolist()
    return values[0] if values else None


def pick(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Returns the tensor of a name in a saved state.

    Args:
        state: As it was saved.
        name: Of the tensor.
        like: A tensor of the shape and dtype that it must have.

    Raises:
        ValueError: When it is not there, or of another shape or dtype.
    """
    found = state.get(name)
    if found is None or found.shape != like.shape or found.dtype != like.dtype:
        got = "does not" if found is None else f"holds {found.dtype} of shape {tuple(found.shape)}"
        raise ValueError(
            f"the saved state must hold {show_name(name)} as {like.dtype} of shape {tuple(like.shape)}, but {got}"
        )
    return found

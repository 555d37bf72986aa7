"""The state of a model: a copy of its tensors by name, the hash of them, and their way back."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lottery_tickets._core.names import clean_name, unwrap


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


def _locate(tensor: Tensor, name: str) -> object:
    """Returns where a tensor lies, which is its name where it lies nowhere."""
    if not tensor.numel():
        return name
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of names, dtypes, shapes and bits, in hexadecimal; the order of the names does not matter."""
    hashed = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


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
    except (KeyError, RuntimeError) as error:
        message = f"trainer_fn must return the model it is given, a copy of it or None, but: {error}"
        raise ValueError(message) from error
    return state


def load_clean_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a state of clean names into a model whose own names may hold what torch.compile puts into them.

    Raises:
        KeyError: When the state lacks a name.
        RuntimeError: When it does not fit.
    """
    clean = {clean_name(name): tensor for name, tensor in state.items()}
    inner = unwrap(model)
    inner.load_state_dict({name: clean[clean_name(name)] for name in inner.state_dict()})

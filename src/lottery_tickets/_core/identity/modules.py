"""What a module of torch consists of, besides its weights."""

import re
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Final

import torch
from torch import Tensor, nn

from lottery_tickets._core.identity.bytecode import Usage
from lottery_tickets._core.names import clean_name, unwrap

_NUMBERS: Final = (bool, int, float, complex, type(None), torch.dtype, FunctionType, BuiltinFunctionType, MethodType)
_OF_EVERY_MODULE: Final = frozenset(vars(nn.Module()))
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def list_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules inside a module and itself, once for each name, without what torch.compile wraps around."""
    for name, inner in unwrap(module).named_modules(remove_duplicate=False):
        yield clean_name(name), inner


def group_tied_names(module: nn.Module) -> list[tuple[list[str], Tensor]]:
    """Returns the parameters and buffers of a module, each with all its names, in order of the first."""
    inner = unwrap(module)
    groups: dict[int, tuple[list[str], Tensor]] = {}
    for named in (inner.named_parameters, inner.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            groups.setdefault(id(tensor), ([], tensor))[0].append(clean_name(name))
    return list(groups.values())


def list_hyperparameters(module: nn.Module, forward: Usage | None) -> dict[str, object]:
    """Returns what a module shows of itself, and its options: attributes that are numbers, functions or tuples of them.

    Args:
        module: Its own attributes count, not those of the modules inside.
        forward: What its forward pass does with names; None for a class of an installed library. Attributes that it
            changes do not count. Texts count, and private attributes that it reads; those of libraries do not, they
            tell where a model was loaded from and what was done with it.
    """
    shown = {"extra_repr": _ADDRESS.sub("", module.extra_repr())}
    kinds = _NUMBERS if forward is None else (*_NUMBERS, str)
    read, changed = (forward.attributes, forward.changed_attributes) if forward is not None else ((), ())
    options = {
        name: value
        for name, value in vars(module).items()
        if name not in _OF_EVERY_MODULE
        and name not in changed
        and (name in read or not name.startswith("_"))
        and all(isinstance(part, kinds) for part in (value if isinstance(value, tuple | list) else (value,)))
    }
    return {**shown, **options}

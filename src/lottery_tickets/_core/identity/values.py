"""Any Python value as bytes that are the same in every process, as far as the value can be identified."""

import copyreg
import enum
import functools
import hashlib
import math
import site
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lottery_tickets._core.identity.bytecode import (
    find_usage,
    find_usage_of_method,
    list_operations,
)
from lottery_tickets._core.identity.modules import group_tied_names, list_hyperparameters, list_modules
from lottery_tickets._core.sharding.dtensors import is_sharded
from lottery_tickets._core.sharding.fsdp import find_class

MOST_NESTED: Final = 60  # levels; Python allows 1,000 calls inside each other, and a level takes up to five

_TORCH_WORDS: Final = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_BUILT_IN: Final = (BuiltinFunctionType, MethodWrapperType, type(str.join), type(str.__len__))
_PLAIN: Final[Mapping[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"",
    type(...): lambda _: b"",
    type(NotImplemented): lambda _: b"",
    object: lambda _: b"",  # has no content
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: b"%d" % value,
    float: lambda value: struct.pack("<d", value),
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: bytes,
    bytearray: bytes,
}


@final
class Encoder:
    """Writes values so that other values give other bytes; no address, hash or order of a set gets into them.

    Functions and classes of the caller are written as what their code does, with defaults, the values of enclosing
    functions, and the globals that they look up, at any depth; those of installed libraries by name. Modules of torch
    are written with their weights. Any other object is what `pickle` would store of it: its class and its attributes.

    Args:
        write: Takes the bytes, such as `hashlib.sha256().update`; they must not be kept without a copy.

    Attributes:
        unknown: What could not be identified, in words, in order.
    """

    def __init__(self, write: Callable[[Any], object]) -> None:
        self.write = write
        self.unknown: list[str] = []
        self._names: list[str] = []
        self._inside: list[int] = []
        self._seen: dict[int, tuple[int, object]] = {}  # objects too, so that no other gets the same address

    def encode(self, value: object) -> None:
        """Writes a value."""
        plain = _PLAIN.get(type(value))
        if plain is not None:
            self.put(type(value).__name__, plain(value))
        elif isinstance(value, Tensor):
            self._encode_tensor(value)
        elif id(value) in self._inside:
            self.put("again", b"%d" % (len(self._inside) - self._inside.index(id(value))))
        elif len(self._inside) == MOST_NESTED:
            self.give_up(value, f"is nested more than {MOST_NESTED} levels deep")
        else:
            self._inside.append(id(value))
            try:
                self._encode_nested(value)
            finally:
                self._inside.pop()

    def put(self, tag: str, content: bytes | memoryview) -> None:
        """Writes some bytes with what they are and how many."""
        self.write(head_of(tag, len(content)))
        self.write(content)

    def see(self, value: object) -> None:
        """Counts an object as written, so that where it comes up its number is written in its place."""
        self._seen[id(value)] = len(self._seen), value

    def give_up(self, value: object, reason: str = "") -> None:
        """Writes the type of a value, and notes that the rest of it could not be identified."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        self.put("unknown", kind.encode())
        name = repr(self._names[-1]) if self._names else "it"
        self.unknown.append(f"{name} {reason}" if reason else f"{name} is a {kind}")

    def encode_parts(self, parts: Mapping[str, object]) -> None:
        """Writes values by name."""
        self.write(head_of("parts", len(parts)))
        for name in sorted(parts):
            self.encode(name)
            self._names.append(name)
            self.encode(parts[name])
            self._names.pop()

    def encode_module(self, module: nn.Module, *, with_weights: bool) -> None:
        """Writes the architecture of a module: classes, options, the code of the caller's own classes, tensors by name.

        Args:
            module: Any.
            with_weights: Whether the bits of parameters and buffers are written too, not only dtypes and shapes.
        """
        for name, inner in list_modules(module):
            self.see(inner)
            self.put("module", name.encode())
            self.encode_options(inner)
        for names, tensor in group_tied_names(module):
            is_known = not is_lazy(tensor)
            shape = f"{tensor.dtype} {tuple(tensor.shape)}" if is_known else "not known yet"
            self.put("tensor", f"{names} {shape} {tensor.requires_grad}".encode())
            if with_weights and is_known:
                self._encode_tensor(tensor)

    def encode_options(self, module: nn.Module) -> None:
        """Writes the class of one module, with its code where that is the caller's, and its options."""
        cls = find_class(module)
        self.encode(cls)
        forward = None if is_library(cls.__module__) else find_usage_of_method(cls, cls.forward)
        self.encode_parts(list_hyperparameters(module, forward))

    def _encode_nested(self, value: object) -> None:
        if isinstance(value, Mapping):
            self._encode_mapping(value)
        elif isinstance(value, tuple | list):
            self.write(head_of("sequence", len(value)))
            for item in value:
                self.encode(item)
        elif isinstance(value, set | frozenset):
            self.put("set", b"".join(sorted(map(_hash_alone, value))))
        elif isinstance(value, np.ndarray | np.generic):
            self._encode_array(np.asarray(value))
        elif isinstance(value, enum.Enum):
            self.put("member", f"{type(value).__qualname__}.{value.name}".encode())
            self.encode(value.value)
        elif isinstance(value, _TORCH_WORDS):
            self.put("torch", str(value).encode())
        elif isinstance(value, torch.Generator):
            self.put("generator", b"%d" % value.initial_seed())
        else:
            self._encode_code(value)

    def _encode_code(self, value: object) -> None:
        """Writes what stands for code of its own or of another, and what has a name."""
        if isinstance(value, CodeType):
            self.put("code", b"")
            self.encode(list_operations(value))
        elif isinstance(value, ModuleType):
            self.put("imported", value.__name__.encode())
        elif isinstance(value, staticmethod | classmethod | MethodType):
            self.put("bound", b"")
            self.encode(value.__func__)
            if isinstance(value, MethodType):
                self._encode_owner(value.__self__, value.__func__)
        elif isinstance(value, property):
            self.encode([value.fget, value.fset])
        elif isinstance(value, _BUILT_IN):
            self.put("built in", f"{getattr(value, '__module__', None)}.{value.__qualname__}".encode())
            owner = getattr(value, "__self__", None)
            self.encode(None if isinstance(owner, ModuleType | type) else owner)
        else:
            self._encode_once(value)

    def _encode_once(self, value: object) -> None:
        """Writes a function, a class or an object where it comes up first, its number later."""
        if id(value) in self._seen:
            self.put("seen", b"%d" % self._seen[id(value)][0])
        elif isinstance(value, nn.Module):
            self.encode_module(value, with_weights=True)
        elif isinstance(value, FunctionType):
            self.see(value)
            self._encode_function(value)
        elif isinstance(value, type):
            self.see(value)
            self._encode_class(value)
        else:
            self._encode_owner(value, _find_call(value))

    def _encode_mapping(self, value: Mapping[Any, Any]) -> None:
        self.write(head_of("mapping", len(value)))
        keys = list(value)
        for key in sorted(keys) if all(type(key) is str for key in keys) else sorted(keys, key=_hash_alone):
            self.encode(key)
            self._names.append(str(key) if isinstance(key, str | int) else type(key).__name__)
            self.encode(value[key])
            self._names.pop()

    def _encode_tensor(self, tensor: Tensor) -> None:
        if is_sharded(tensor):
            self.give_up(tensor, "is shared out over processes")
            return
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            self.give_up(tensor, f"is a {tensor.layout} tensor on {tensor.device}")
            return
        self.write(head_of_tensor(tensor.dtype, tensor.shape))
        self.write(view_bytes(tensor).data)

    def _encode_array(self, array: np.ndarray[Any, Any]) -> None:
        self.put("array", f"{array.dtype.str} {array.shape}".encode())
        if array.dtype.hasobject:
            self.encode(array.tolist())
        else:
            self.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _encode_function(self, function: FunctionType) -> None:
        code = function.__code__
        module = function.__globals__.get("__name__")  # a decorator may have changed the function's own
        parts: dict[str, object] = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                parts[name] = cell.cell_contents
            except ValueError:  # assigned to later
                parts[name] = None
        if is_library(module):
            self.put("library", f"{module}.{code.co_qualname}".encode())
            wrapped = getattr(function, "__wrapped__", None)
            self.encode_parts({function.__name__: wrapped} if wrapped is not None else parts)
            return
        usage = find_usage(code)
        names = [name for name in usage.globals if name in function.__globals__]
        self.encode(code)
        self.encode(function.__defaults__)
        self.encode_parts(function.__kwdefaults__ or {})
        self.encode_parts({name: part for name, part in parts.items() if name not in usage.changed_names})
        self.put("globals", b"%d" % len(names))
        values = {name: function.__globals__[name] for name in names if name not in usage.changed_names}
        self.encode_parts(values)
        for value in values.values():
            if isinstance(value, ModuleType) and not is_library(value.__name__):
                read = {name: vars(value)[name] for name in usage.attributes if name in vars(value)}
                self.encode_parts(read)

    def _encode_class(self, cls: type) -> None:
        if is_library(cls.__module__):
            self.put("library", f"{cls.__module__}.{cls.__qualname__}".encode())
        elif issubclass(cls, enum.Enum):
            self.put("enum", cls.__qualname__.encode())
            self.encode({member.name: member.value for member in cls})
        else:
            self.put("class", cls.__qualname__.encode())
            self.encode(cls.__bases__)
            functions = (FunctionType, staticmethod, classmethod, property)
            self.encode_parts(
                {
                    name: value
                    for name, value in vars(cls).items()
                    if isinstance(value, functions) or not name.startswith(("__", "_abc_"))
                }
            )

    def _encode_owner(self, value: object, call: object) -> None:
        """Writes an object as its class and what pickle would store, without the attributes that a call changes."""
        if isinstance(value, type | nn.Module) or id(value) in self._seen:
            self._encode_once(value)
            return
        self.see(value)
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):  # such as what functools.lru_cache and numba make
            self.encode([type(value), wrapped])
            return
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce is not None else value.__reduce_ex__(2)
        except Exception:  # noqa: BLE001 - a class may refuse to be pickled in its own way
            self.give_up(value)
            return
        self.encode(type(value))
        if isinstance(reduced, str):
            self.put("global", reduced.encode())
            return
        made, arguments, state, *items = (*reduced, None, None, None)[:5]
        self.encode([made, arguments])
        if isinstance(state, dict):
            changed = find_usage_of_method(type(value), call).changed_attributes
            self.encode_parts({str(name): part for name, part in state.items() if name not in changed})
        else:
            self.encode(state)
        self.encode([None if part is None else list(part) for part in items])


def head_of(tag: str, size: int) -> bytes:
    """Returns the bytes that stand before so many items or bytes of a kind."""
    return f"{tag} {size}:".encode()


def head_of_tensor(dtype: torch.dtype, shape: Iterable[int]) -> bytes:
    """Returns the bytes that stand before the bits of a tensor."""
    shape = tuple(shape)
    return f"{dtype} {shape} {math.prod(shape) * dtype.itemsize}:".encode()


def view_bytes(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns the bits of a tensor in C order, 1-D; a view of it where it lies so."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    viewed: np.ndarray[Any, np.dtype[np.uint8]] = plain.view(-1).view(torch.uint8).numpy()
    return viewed


@functools.cache
def is_library(module: str | None) -> bool:
    """Returns whether a module is installed, or part of Python, and so named by the versions that a run records.

    Args:
        module: Its name; None, and the names of scripts and notebooks, are the caller's own.
    """
    root = (module or "__main__").partition(".")[0]
    if root in {"__main__", "__mp_main__"}:
        return False
    if root in sys.stdlib_module_names or root == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib")} | {site.getusersitepackages()}
    return any(Path(file).is_relative_to(folder) for folder in installed if file) or "site-packages" in file


def _find_call(value: object) -> object:
    return type(value).__call__ if callable(value) else None


def _hash_alone(value: object) -> bytes:
    hashed = hashlib.sha256()
    Encoder(hashed.update).encode(value)
    return hashed.digest()

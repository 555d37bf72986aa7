"""What decides what a function of the caller does, and what a model is besides its weights."""

import hashlib
from collections.abc import Callable
from typing import Final, Literal

from torch import nn

from lottery_tickets._core.identity.bytecode import BYTECODE
from lottery_tickets._core.identity.identities import Identity, name_identity
from lottery_tickets._core.identity.modules import list_modules
from lottery_tickets._core.identity.values import Encoder
from lottery_tickets._core.sharding.data_parallel import name_class

DIGITS: Final = 16  # of a module's digest, of which there are many


def identify_callable(
    function: Callable[..., object],
    given_id: str | None = None,
    *,
    what: str = "trainer_fn",
    argument: str = "trainer_id",
) -> Identity:
    """Returns the identity of what a function does.

    It is that of the compiled code, not of the source: the code is what runs. A source file may have been changed
    after it was imported, is missing in `python -c`, and is that of another function behind a decorator. Comments,
    docstrings, formatting and the place in the file do not show in it, but for 5 of 2,945 functions that were written
    anew from their syntax trees: where a condition in a comprehension spans lines, its jumps differ. It is of one
    version of Python; another compiles to other code, so that `compare_identities` says "unknown" across versions.

    With the code go defaults, the values of enclosing functions, the arguments of a partial, the attributes of a
    callable object, and the globals that are looked up: numbers, texts, containers, tensors, modules with their
    weights, and the caller's own functions and classes, at any depth. What the function itself changes, such as a list
    that it appends to, is a record and does not count. Functions of installed libraries go by name.

    Args:
        function: Any callable.
        given_id: The caller's own name for it, in place of all this.
        what: What sentences call it.
        argument: The argument by which the caller can name it.
    """
    if given_id is not None:
        return name_identity(given_id, what)
    hashed = hashlib.sha256()
    encoder = Encoder(hashed.update)
    encoder.encode(function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return _conclude("code", hashed.hexdigest(), encoder, f"{what} {name}", argument)


def identify_architecture(
    model: nn.Module, given_id: str | None = None, *, what: str = "the model", argument: str = "model_id"
) -> Identity:
    """Returns the identity of a model apart from its weights.

    It is of the names and classes of its modules, of their options (`extra_repr`, and attributes that are numbers,
    functions or tuples of them), of the names, shapes, dtypes and ties of parameters and buffers, and of the code of
    classes that do not come from an installed library, see `identify_callable`. Whether the model trains or evaluates
    does not show; hooks do not show either.

    Args:
        model: Any.
        given_id: The caller's own name for it, in place of all this.
        what: What sentences call it.
        argument: The argument by which the caller can name it.
    """
    if given_id is not None:
        return name_identity(given_id, what)
    hashed = hashlib.sha256()
    encoder = Encoder(hashed.update)
    encoder.encode_module(model, with_weights=False)
    name = name_class(model)
    return _conclude("architecture", hashed.hexdigest(), encoder, f"{what} {name}", argument)


def identify_modules(model: nn.Module) -> dict[str, str]:
    """Returns for each module of a model by name a digest of its class and options, and of the caller's own code.

    Args:
        model: Any; "" is the name of the model itself. Tensors do not show, their dtypes and devices neither.
    """
    found = {}
    for name, module in list_modules(model):
        hashed = hashlib.sha256()
        Encoder(hashed.update).encode_options(module)
        found[name] = hashed.hexdigest()[:DIGITS]
    return found


def _conclude(
    kind: Literal["code", "architecture"], digest: str, encoder: Encoder, name: str, argument: str
) -> Identity:
    says, reasons = f"{name} was identified", list(dict.fromkeys(encoder.unknown))
    if reasons:
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""  # noqa: PLR2004 - enough for a sentence
        says = f"{name} could be identified only in part: {'; '.join(reasons[:3])}{more}; pass {argument}="
    return {
        "kind": kind,
        "digest": digest,
        "says": says,
        "complete": not reasons,
        "bytecode": BYTECODE,
    }

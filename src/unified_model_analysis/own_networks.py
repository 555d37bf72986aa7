"""A network of one's own at the shell: what a function returns that an option names as `module:function`."""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """A network with its data.

    Attributes:
        model: With the weights that it is to have.
        batches: A data loader or a list of batches, to be gone through many times.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds than dicts and pairs of inputs
            and classes.
        test_batches: What is measured on, where something is trained on `batches`; these too when None.
        trainer_fn: `trainer_fn(model, batches, epochs=n)`, where something is trained; Adam when None.
    """

    model: "nn.Module"
    batches: Iterable[Any]
    loss_fn: Callable[..., Any] | None = None
    test_batches: Iterable[Any] | None = None
    trainer_fn: Callable[..., Any] | None = None


EPOCHS: Final = 10  # of a training, where no number is given
LEARNING_RATE: Final = 1e-3  # of Adam, where there is no trainer_fn and no rate is given
NAMES = tuple(field.name for field in fields(OwnNetwork))


def call_source(source: str) -> OwnNetwork:
    """Returns what a function of the user's returns: the first of these attributes as a tuple, or any by name.

    Args:
        source: "module:function"; modules of the present folder are found.

    Raises:
        ValueError: When there is no such function, or it returns something else.
    """
    module, _, function = source.partition(":")
    if not module or not function:
        raise ValueError(f"--from must be module:function, got {source!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--from must name a function that can be imported, but {source!r}: {error}") from error
    return _read(source, made())


def _read(source: str, found: Any) -> OwnNetwork:  # noqa: ANN401 - what a function of the user's returns
    from torch import nn

    words = f"{source} must return a model and its batches, or these and a loss_fn, or a dict of {', '.join(NAMES)}"
    given = found if isinstance(found, Mapping) else {}
    if isinstance(found, tuple) and len(found) in {2, 3}:
        given = dict(zip(NAMES, found, strict=False))
    if not {"model", "batches"} <= given.keys() <= set(NAMES) or not isinstance(given["model"], nn.Module):
        raise ValueError(f"{words}; got {_name(found)}")
    return OwnNetwork(**given)


def _name(found: object) -> str:
    if isinstance(found, Mapping):
        return f"a dict of {', '.join(map(str, found)) or 'nothing'}"
    return f"a tuple of {len(found)}" if isinstance(found, tuple) else f"a {type(found).__name__}"

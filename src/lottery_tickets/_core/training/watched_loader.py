"""A data loader that says when a pass over it begins, so that a trainer is followed that knows nothing of it."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def watch_passes(dataloader: Iterable[Any], on_pass: Callable[[], object]) -> Iterable[Any]:
    """Returns a loader like the given one, and of its class, that calls a function where each pass over it begins.

    The given one is left as it is. A loader that can be neither copied nor subclassed is returned itself, unwatched.

    Args:
        dataloader: Whatever gives batches anew each time it is iterated over.
        on_pass: Called before the first batch of a pass is asked for.

    Examples:
        >>> passes = []
        >>> watched = watch_passes([1, 2], lambda: passes.append(len(passes)))
        >>> isinstance(watched, list), list(watched), list(watched), passes
        (True, [1, 2], [1, 2], [0, 1])
    """
    own = type(dataloader)

    def iterate(loader: Any) -> Iterator[Any]:  # noqa: ANN401 - of a class that is made here
        on_pass()
        return own.__iter__(loader)

    try:
        names = {"__iter__": iterate, "__module__": own.__module__, "__qualname__": own.__qualname__}
        watching = type(own.__name__, (own,), names)
        if issubclass(own, list | tuple):
            return watching(dataloader)  # type: ignore[no-any-return] # an own
        watched = copy.copy(dataloader)
        object.__setattr__(watched, "__class__", watching)  # past what a DataLoader refuses to have changed
    except TypeError:
        return dataloader
    return watched

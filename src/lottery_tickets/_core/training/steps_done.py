"""Steps as they are done, told to whoever shows them; what trains knows nothing of bars or processes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import final

Listen = Callable[[int], object]


@final
class _Listener:
    """Who is told, in this process."""

    listen: Listen | None = None


def count_steps(num: int = 1) -> None:
    """Says that so many steps are done."""
    if _Listener.listen is not None:
        _Listener.listen(num)


def tell_steps_to(listen: Listen | None) -> None:
    """Has a function told the number of steps as they are done, from now on; None for nobody."""
    _Listener.listen = listen


@contextlib.contextmanager
def telling_steps_to(listen: Listen) -> Iterator[None]:
    """Within the block, has a function told the number of steps as they are done.

    Examples:
        >>> told = []
        >>> with telling_steps_to(told.append):
        ...     count_steps()
        >>> count_steps(5)
        >>> told
        [1]
    """
    before = _Listener.listen
    tell_steps_to(listen)
    try:
        yield
    finally:
        tell_steps_to(before)

"""What `dir` and the Tab key show of a public module: its public names, and not what it imports."""

import sys
from collections.abc import Callable, Iterable


def show_only(names: Iterable[str]) -> Callable[[], list[str]]:
    """Returns the `__dir__` of a module that shows these names.

    Example:
        >>> show_only(["b", "a"])()
        ['a', 'b']
    """
    shown = sorted(names)
    return lambda: shown


def show_own(module: str) -> Callable[[], list[str]]:
    """Returns the `__dir__` of a module that shows the public functions and classes that are defined there.

    Args:
        module: Its `__name__`.
    """

    def list_own() -> list[str]:
        held = vars(sys.modules[module]).items()
        return sorted(n for n, value in held if n[0] != "_" and getattr(value, "__module__", None) == module)

    return list_own

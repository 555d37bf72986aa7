"""What `dir` and the Tab key show of a public module: its public names, and not what it imports."""

from collections.abc import Callable, Iterable


def show_only(names: Iterable[str]) -> Callable[[], list[str]]:
    """Returns the `__dir__` of a module that shows these names.

    Example:
        >>> show_only(["b", "a"])()
        ['a', 'b']
    """
    shown = sorted(names)
    return lambda: shown

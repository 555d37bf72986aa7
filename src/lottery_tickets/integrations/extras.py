"""What is said where the library behind a door is not installed."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Within the block, a module that is missing is said with the extra that has it.

    Args:
        extra: Of this distribution.

    Raises:
        ModuleNotFoundError: When a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {error.name}, which is not installed; run: pip install 'lottery-tickets[{extra}]'",
            name=error.name,
        ) from error

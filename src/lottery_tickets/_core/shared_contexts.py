"""Settings of the whole process that several threads need at once: made by the first, undone by the last."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import final


@final
class SharedContext:
    """A context that is entered when the first of all threads enters this one, and left when the last leaves it.

    Each thread for itself would put back what it found, which may be what another thread had set for a while.

    Args:
        make_context: Makes the context.
    """

    def __init__(self, make_context: Callable[[], AbstractContextManager[object]]) -> None:
        self._make_context = make_context
        self._lock = threading.Lock()
        self._num_inside = 0
        self._open = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Within the block the context is entered."""
        with self._lock:
            if not self._num_inside:
                self._open.enter_context(self._make_context())
            self._num_inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_inside -= 1
                if not self._num_inside:
                    self._open.close()

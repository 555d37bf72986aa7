"""A context that several threads share is entered once and left once, whoever comes first and goes last."""

import contextlib
from collections.abc import Iterator

from lottery_tickets._core.shared_contexts import SharedContext


def test_the_first_enters_and_the_last_leaves() -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def make() -> Iterator[None]:
        seen.append("entered")
        yield
        seen.append("left")

    shared = SharedContext(make)
    first, second = shared(), shared()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert seen == ["entered"]
    second.__exit__(None, None, None)
    assert seen == ["entered", "left"]
    with shared():
        pass
    assert seen == ["entered", "left"] * 2

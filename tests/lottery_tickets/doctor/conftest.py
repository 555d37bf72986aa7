"""A short look at the speed of this machine; the doctest of `check_installation` takes the whole one."""

import pytest

from lottery_tickets.doctor import speed


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and smaller calls, each timed for a moment."""
    monkeypatch.setattr(speed, "SIDES", (8, 64))
    monkeypatch.setattr(speed, "CONVOLUTIONS", ((1, 4, 8), (8, 16, 8)))
    monkeypatch.setattr(speed, "ELEMENTS", (64, 1 << 16))
    monkeypatch.setattr(speed, "SELECTED", (1 << 10, 1 << 16))
    monkeypatch.setattr(speed, "MOVED_SIDES", (16, 64))
    monkeypatch.setattr(speed, "SECONDS_EACH", 0.002)
    monkeypatch.setattr(speed, "SECONDS_AT_MOST", 10.0)  # none is left out, however slow the machine

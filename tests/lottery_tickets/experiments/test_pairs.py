"""Pairs of trainings in a folder; what they contain is tested with the command that trains them."""

from pathlib import Path

import pytest

from lottery_tickets._core.files import exclusive_lock
from lottery_tickets._core.folders import MARKER
from lottery_tickets.experiments.pairs import TrainedPairs
from lottery_tickets.experiments.workload_subject import WorkloadSubject
from tests.models import load_digits


def test_the_folder_is_locked_before_its_settings_are_read_or_written(tmp_path: Path) -> None:
    """What another process is beginning there must be neither overwritten nor compared with."""
    ours, others = (
        TrainedPairs(tmp_path, WorkloadSubject(load_digits()), seed, start=None, mask=None) for seed in (0, 1)
    )
    in_use = "must be used by one process at a time"
    with exclusive_lock(tmp_path / ".lock"), pytest.raises(ValueError, match=in_use), ours.opened():
        pass
    assert not (tmp_path / MARKER).exists()
    with others.opened(), pytest.raises(ValueError, match=in_use), ours.opened():
        pass

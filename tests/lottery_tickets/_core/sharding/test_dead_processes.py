"""A process that dies ends the others soon, in words, and leaves nothing half written."""

import time
from pathlib import Path

from tests.lottery_tickets._core.sharding import models
from tests.processes import started


def test_the_others_say_so_and_the_same_command_goes_on(tmp_path: Path) -> None:
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
    with started(3, tmp_path / "first", seconds=20) as processes:
        begun = time.monotonic()
        answers = processes.ask(models.die_on_the_way, 1, str(tmp_path))
        assert time.monotonic() - begun < 60  # of which each has 20 to answer
    assert answers[1] == (False, "died")
    for is_right, text in (answers[0], answers[2]):
        assert not is_right
        assert "all 3 processes that share the weights must answer, but one has ended or is stuck" in text
    assert not (tmp_path / "mask.safetensors").exists()
    with started(2, tmp_path / "again") as again:
        again.run(models.die_on_the_way, -1, str(tmp_path))
    assert (tmp_path / "mask.safetensors").exists()

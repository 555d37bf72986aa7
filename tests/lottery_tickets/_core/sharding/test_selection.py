"""Masks of sharded weights are those of plain ones, whatever the processes, the shards and the copies."""

from pathlib import Path

from tests.lottery_tickets._core.sharding import checks
from tests.processes import Processes, started

MESHES = {2: [(2,), (1, 2)], 4: [(2, 2), (4,), (2, 2), (4, 1)]}


def test_masks_of_shards_are_those_of_the_whole(processes: Processes) -> None:
    """In every scope, by counting and by guesses, within earlier masks, with ties, copies and empty shards."""
    number = len(processes.workers)
    counts = processes.run(checks.check_selection, MESHES[number], range(100 * number, 100 * number + 40))
    assert len(set(counts)) == 1
    assert counts[0] > 20


def test_masks_of_three_processes(tmp_path: Path) -> None:
    """Three, by which few shapes divide."""
    with started(3, tmp_path) as three:
        three.run(checks.check_selection, [(3,)], range(25))

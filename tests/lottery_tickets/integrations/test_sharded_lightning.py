"""A Lightning training whose model is under `fully_shard` is watched as that of a plain model is."""

from pathlib import Path

import pytest

from tests.processes import started

pytest.importorskip("lightning.pytorch")


def test_a_sharded_training_is_watched(tmp_path: Path) -> None:
    from tests.lottery_tickets.integrations import sharded_lightning  # noqa: PLC0415 - needs lightning

    with started(2, tmp_path) as processes:
        processes.run(sharded_lightning.check_watching, str(tmp_path))

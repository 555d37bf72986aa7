"""A `Trainer` whose model is under `fully_shard` is watched as that of a plain model is."""

from pathlib import Path

import pytest

from tests.processes import started

pytest.importorskip("accelerate")
pytest.importorskip("transformers.distributed.configuration_utils")


@pytest.mark.long
def test_a_sharded_training_is_watched(tmp_path: Path) -> None:
    from tests.lottery_tickets.integrations import sharded_trainer  # noqa: PLC0415 - needs transformers

    with started(2, tmp_path) as processes:
        processes.run(sharded_trainer.check_watching, str(tmp_path))

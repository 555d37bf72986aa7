"""Searches for early-bird tickets train sharded models as they train plain ones."""

from collections.abc import Iterator

import pytest

from tests.lottery_tickets._core.sharding import training
from tests.processes import Processes, started


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with started(2, tmp_path_factory.mktemp("processes")) as together:
        yield together


def test_each_trainer_does_what_it_does_with_a_plain_model(two: Processes) -> None:
    two.run(training.check_trainers)


def test_processes_train_on_samples_of_their_own(two: Processes) -> None:
    two.run(training.check_other_samples)


def test_shards_are_rounded_at_random(two: Processes) -> None:
    two.run(training.check_rounding)


def test_what_cannot_be_is_refused(two: Processes) -> None:
    two.run(training.check_refused)

"""Scores of models under `fully_shard` are those of one process that sees all samples, in each process its shard."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lottery_tickets._core.sharding import scoring, splitting, whole
from tests.processes import Processes, started


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with started(2, tmp_path_factory.mktemp("processes")) as together:
        yield together


def test_every_score_is_that_of_one_process(two: Processes) -> None:
    two.run(scoring.check_scores, list(scoring.SCORES))


def test_scores_by_whole_weights(two: Processes) -> None:
    two.run(whole.check_whole)


def test_processes_stop_together(two: Processes) -> None:
    two.run(scoring.check_settling)


def test_uneven_and_empty_shards(four: Processes) -> None:
    """Of five rows over four processes the last has none. What is gathered may be kept until the backward pass."""
    four.run(scoring.check_few_scores)


def test_scores_under_tensor_parallelism(two: Processes) -> None:
    two.run(splitting.check_scores, "tensor", ["clipped", "units", "wanda", "grasp", "synflow"])


def test_models_that_are_split_everywhere(two: Processes) -> None:
    two.run(splitting.check_all)


def test_split_models_that_are_run_one_sample_at_a_time(two: Processes) -> None:
    two.run(splitting.check_odd)


def test_what_one_raises_of_those_that_see_the_same_samples(two: Processes) -> None:
    for said in two.run(splitting.list_errors):
        assert said[:2] == ["OverflowError: too hot here", "OSError: the disk is gone"]
        assert "must be given the same batches, but have others" in said[2]


def test_scores_under_both(four: Processes) -> None:
    four.run(splitting.check_scores, "both", ["units", "grasp", "synflow"])


def test_shards_of_which_there_are_copies(four: Processes) -> None:
    four.run(scoring.check_copies)


def test_models_that_are_gathered_otherwise(two: Processes) -> None:
    two.run(scoring.check_kinds)


def test_another_version_of_torch_is_refused(two: Processes) -> None:
    two.run(scoring.check_other_torch)


def test_gradients_that_wait_to_be_reduced_wait_on(two: Processes) -> None:
    two.run(scoring.check_accumulated)


def test_models_of_which_a_part_is_sharded(two: Processes) -> None:
    two.run(scoring.check_plain_weights)


def test_models_that_are_run_one_sample_at_a_time(two: Processes) -> None:
    two.run(scoring.check_odd)


def test_samples_that_are_not_finite(two: Processes) -> None:
    two.run(scoring.check_bad_samples)


def test_small_batches(two: Processes) -> None:
    two.run(scoring.check_small_batches)


def test_mixed_precision_is_that_of_fsdp(two: Processes) -> None:
    two.run(scoring.check_low_precision)


def test_files_tell_of_all_shards(two: Processes, tmp_path: Path) -> None:
    two.run(scoring.check_files, str(tmp_path))


def test_ranks_by_counting(two: Processes) -> None:
    two.run(scoring.check_many_ranks)


@pytest.mark.parametrize("kind", ["fsdp", "tensor", "both"])
def test_movement(four: Processes, kind: str) -> None:
    four.run(scoring.check_movement, kind)


def test_movement_by_gradients_that_are_parts_of_sums(two: Processes) -> None:
    two.run(scoring.check_partial_movement)


@pytest.mark.parametrize("skips", [False, True])
def test_what_one_process_raises_all_raise(two: Processes, skips: bool) -> None:
    for said in two.run(scoring.list_errors, skips):
        for words in said[:2]:
            if skips:
                assert "must use the same layers in the same order" in words
            else:
                assert words == "OverflowError: an input is above 90"
        assert said[2] == "OSError: the disk is gone"
        assert "must be given a sample, but this one's data is empty" in said[3]
        assert said[4] == "ValueError: each of 2 processes must see a sample, but num_samples is 1; raise it"

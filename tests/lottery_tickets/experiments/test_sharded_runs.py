"""Runs of models that several processes train have the files of one process, and any number goes on with them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lottery_tickets.experiments.pruning_results import PruningResults
from lottery_tickets.experiments.verification import verify_run
from tests.lottery_tickets.experiments import sharded_runs
from tests.processes import Processes, started


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Four processes: of a model's sizes some divide by four, of others one process has nothing."""
    with started(4, tmp_path_factory.mktemp("processes")) as together:
        yield together


def run_plain(folder: Path, rewinding: str = "weights") -> PruningResults:
    return sharded_runs.run(sharded_runs.make_plain(), str(folder), rewinding=rewinding)


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns what a run has stored of masks and weights."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("kind", "rewinding"),
    [
        ("both", "weights"),
        ("fsdp 3", "learning_rate"),
        ("ddp", "weights"),
    ],
)
def test_files_and_masks_are_those_of_one_process(four: Processes, tmp_path: Path, kind: str, rewinding: str) -> None:
    plain, shared = tmp_path / "plain", tmp_path / "shared"
    expected = run_plain(plain, rewinding)
    found = [one for one in four.run(sharded_runs.check_run, kind, str(shared), rewinding) if one is not None]
    for digests, rows in found:
        assert digests == [mask.digest for mask in expected["masks"]]
        assert rows == found[0][1]
    if len(found) == 4:  # each measures on one of the two batches
        for own, row in zip(found[0][1], expected["trainings"], strict=True):
            assert own["history"]["end"] == pytest.approx(row["history"]["end"], rel=1e-5)
    files = read_files(shared)
    assert files == read_files(plain)
    assert len(files) == 2 * 6 + 1
    checks = verify_run(shared)
    assert not [check for check in checks if check.problem]
    assert {path.name for path in shared.iterdir()} == {path.name for path in plain.iterdir()}


def test_a_run_begun_by_four_goes_on_with_two_and_one(four: Processes, tmp_path: Path) -> None:
    plain, shared = tmp_path / "plain", tmp_path / "shared"
    run_plain(plain)
    for num_processes, most in ((4, 3), (2, 1)):
        said = four.run(sharded_runs.stop_after, num_processes, str(shared), most)
        assert all(f"of the {num_processes} that train the model" in notes for notes in said if notes)
    assert 0 < len(list(shared.rglob("record.json"))) < 6
    run_plain(shared)
    assert read_files(shared) == read_files(plain)


def test_others_say_that_one_was_killed_and_one_goes_on(tmp_path: Path) -> None:
    run_plain(tmp_path / "plain")
    shared = tmp_path / "shared"
    with started(3, tmp_path, seconds=10) as three:
        begun = time.monotonic()
        answers = three.ask(sharded_runs.die_in_training, 2, str(shared))
        assert time.monotonic() - begun < 40
    assert answers[2] == (False, "died")
    for is_right, text in answers[:2]:
        assert not is_right
        assert "of the 3 that train the model; where another has ended, look for its own error" in text
    assert not [path for path in shared.rglob("*") if "part" in path.name]
    assert sorted(path.name for path in shared.glob("replicate-0/level*")) == ["level-00-ticket", "level-01-ticket"]
    run_plain(shared)
    assert read_files(shared) == read_files(tmp_path / "plain")


@pytest.mark.parametrize("kind", ["fsdp", "both"])
def test_a_simulation_has_the_masks_of_the_plain_model(four: Processes, kind: str) -> None:
    found = four.run(sharded_runs.check_simulation, kind)
    assert all(digests == found[0] for digests in found)


@pytest.mark.parametrize("kind", ["fsdp", "tensor", "both"])
def test_fresh_weights_are_those_of_one_process(four: Processes, kind: str) -> None:
    four.run(sharded_runs.check_fresh_weights, kind)


def test_a_tied_state_comes_back_tied(four: Processes, tmp_path: Path) -> None:
    four.run(sharded_runs.check_tied_state, str(tmp_path))


def test_what_the_first_cannot_write_all_raise(four: Processes, tmp_path: Path) -> None:
    for is_right, text in four.ask(sharded_runs.fail_to_write, str(tmp_path / "run")):
        assert not is_right
        assert "OSError: [Errno 28] No space left on device" in text
    assert not (tmp_path / "run").exists()


def test_an_altered_file_is_named_by_all(four: Processes, tmp_path: Path) -> None:
    run_plain(tmp_path / "run")
    for is_right, text in four.ask(sharded_runs.go_on_with_altered, str(tmp_path / "run")):
        assert not is_right
        assert "level-01-ticket/weights.safetensors must match the hash it carries" in text


def test_what_cannot_be_is_refused_by_all(four: Processes, tmp_path: Path) -> None:
    for said in four.run(sharded_runs.list_refused, str(tmp_path / "run")):
        assert [words[:60] for words in said] == [words[:60] for words in REFUSED]
        assert "in the first and in number 2 these differ: plan" in said[2]
    assert not (tmp_path / "run").exists()


REFUSED = [
    "executor= must be None where 4 processes train one model, but is given",
    "path= must be None where 4 processes train one model, but is",
    "all processes that train a model must call this with the same arguments",
    "perplexity must have predicted classes to be counted, but no batch computes exactly one",
]

"""Replicates as tasks: the same bits wherever they are trained, and what happens to tasks that fail or are lost."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lottery_tickets import compute_linear_connectivity, compute_lottery_ticket_quality, create_random_mask
from lottery_tickets._core.determinism import one_thread
from lottery_tickets.experiments.elsewhere import tasks
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.verification import verify_run
from tests.lottery_tickets.experiments.callers import make_model
from tests.lottery_tickets.experiments.elsewhere.spread import (
    Elsewhere,
    Shuffled,
    list_trainings,
    make_folder,
    make_source,
    prune,
    read_all,
    train,
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workload's run and a caller's, trained in this process on one thread."""
    place = tmp_path_factory.mktemp("here")
    source = make_source()
    run_experiment(make_folder(place / "workload", source), source)
    with one_thread():
        prune(place / "caller")
    return place


@pytest.fixture(scope="module")
def processes() -> Any:  # noqa: ANN401 - a fixture
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_results_are_the_same_bits_whatever_the_executor(
    kind: str, here: Path, processes: Executor, tmp_path: Path
) -> None:
    """Threads too: they share generators and the number of threads, so one process trains one replicate at a time."""
    with ThreadPoolExecutor(3) as threads:
        executor = {"processes": processes, "threads": threads}[kind]
        source = make_source()
        run_experiment(make_folder(tmp_path / "workload", source), source, executor=executor)
        prune(tmp_path / "caller", executor=executor)
    for name in ("workload", "caller"):
        assert read_all(tmp_path / name) == read_all(here / name)
        assert [check for check in verify_run(tmp_path / name) if check.problem] == []


def test_a_ticket_is_trained_again_and_pairs_are_trained_elsewhere_to_the_same_figures(
    processes: Executor, tmp_path: Path
) -> None:
    mask = create_random_mask(make_model(), 0.5, 0)
    found = []
    for executor in (None, processes):
        place = tmp_path / str(executor is None)
        with one_thread():
            quality = compute_lottery_ticket_quality(
                *(make_model(), mask, Shuffled()),
                trainer_fn=train,
                num_replicates=2,
                run_folder=place / "quality",
                executor=executor,
            )
            lines = compute_linear_connectivity(
                *(make_model(), Shuffled()),
                trainer_fn=train,
                num_epochs=2,
                num_replicates=2,
                num_points=3,
                run_folder=place / "lines",
                executor=executor,
            )
        assert quality["retrained"] is not None
        found.append(((quality["retrained"]["trainings"], lines["pairs"]), read_all(place)))
    assert found[0] == found[1]


def test_a_function_without_a_name_travels_too(processes: Executor, tmp_path: Path) -> None:
    found = prune(tmp_path, lambda model, data, *, epochs: train(model, data, epochs=2 * epochs), executor=processes)
    assert len(found["trainings"]) > 4


def test_what_cannot_be_pickled_is_named_before_anything_begins(processes: Executor, tmp_path: Path) -> None:
    lock = threading.Lock()

    def train_held(model: nn.Module, dataloader: Any, *, epochs: int) -> None:  # noqa: ANN401 - a loader
        with lock:
            train(model, dataloader, epochs=epochs)

    with pytest.raises(TypeError, match=r"what an executor runs must be picklable, but trainer_fn is not: .*lock"):
        prune(tmp_path / "run", train_held, trainer_id="held", executor=processes)
    assert not (tmp_path / "run").exists()


class OwnError(Exception):
    """Of a caller; made of two things, as many are, which pickle alone does not bear."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def fail_by_value(*_: object, **__: object) -> None:
    raise ValueError("the learning rate must be positive, got -1")


def fail_by_own(*_: object, **__: object) -> None:
    raise OwnError("no batches", "the disk is away")


def test_what_a_training_raises_is_raised_here_with_its_words(processes: Executor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the learning rate must be positive, got -1") as caught:
        prune(tmp_path / "run", fail_by_value, executor=processes)
    assert caught.value.__notes__[0].startswith("in replicate-")
    assert "Traceback" in str(caught.value.__cause__)
    assert not (tmp_path / "run").exists(), "nothing was trained, so it may be begun otherwise"


def test_what_cannot_travel_of_an_exception_is_said(processes: Executor, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^OwnError: no batches: the disk is away$"):
        prune(tmp_path / "run", fail_by_own, executor=processes)


def lose(times: int, after: bool) -> Callable[[Callable[[], object]], object]:
    """Returns what runs a call as an engine does whose worker dies: before it has done anything, or after its work."""
    left = [times]

    def around(call: Callable[[], object]) -> object:
        if left[0]:
            left[0] -= 1
            if after:
                call()
            raise ConnectionError("worker 7 died")
        return call()

    return around


@pytest.mark.parametrize("after", [False, True])
def test_a_task_whose_worker_died_is_given_to_another_one(after: bool, here: Path, tmp_path: Path) -> None:
    executor, source = Elsewhere(lose(2, after)), make_source()
    run_experiment(make_folder(tmp_path / "run", source), source, executor=executor)
    assert len(executor.jobs) == 4
    assert read_all(tmp_path / "run") == read_all(here / "workload")


def test_workers_that_die_again_and_again_end_the_run_which_can_go_on(here: Path, tmp_path: Path) -> None:
    executor, source = Elsewhere(lose(10**6, after=False)), make_source()
    said = "3 workers of replicate 0 died one after the other: ConnectionError: worker 7 died"
    with pytest.raises(ChildProcessError, match=said):
        run_experiment(make_folder(tmp_path / "run", source), source, executor=executor)
    assert executor.jobs[5].is_cancelled
    run_experiment(make_folder(tmp_path / "run", source), source, executor=Elsewhere())
    assert read_all(tmp_path / "run") == read_all(here / "workload")


def test_an_executor_that_takes_no_more_is_said(tmp_path: Path) -> None:
    source = make_source()
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(ChildProcessError, match="the executor must take a task for each replicate, but: RuntimeError"):
        run_experiment(make_folder(tmp_path / "run", source), source, executor=executor)
    assert not (tmp_path / "run").exists()


def test_work_that_is_said_to_be_done_and_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "VISIBLE_SECONDS", 0.0)
    source = make_source()
    with pytest.raises(FileNotFoundError, match="replicate 0 is done and not there; do they write to the same disk"):
        run_experiment(make_folder(tmp_path / "run", source), source, executor=Elsewhere(lambda _: None))


def test_what_is_there_is_not_trained_again(tmp_path: Path) -> None:
    source, executor = make_source(), Elsewhere()
    run_experiment(make_folder(tmp_path, source, num_levels=0), source, executor=executor)
    before = list_trainings(tmp_path)
    run_experiment(make_folder(tmp_path, source), source, executor=executor)
    assert before.items() < list_trainings(tmp_path).items()
    assert len(executor.jobs) == 4
    run_experiment(make_folder(tmp_path, source), source, executor=executor)
    assert len(executor.jobs) == 4, "nothing was missing"

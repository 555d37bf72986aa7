"""Orders: workers that do not see the folder, outlive their driver, or are of another environment; two at once."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.files import InUseError, exclusive_lock, remove_leftovers
from lottery_tickets.experiments.elsewhere import orders
from lottery_tickets.experiments.elsewhere.orders import Failure, fill_order, placing_order
from lottery_tickets.experiments.engine import run_replicate
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.verification import verify_run
from lottery_tickets.experiments.workload_subject import WorkloadSource, WorkloadSubject
from tests.lottery_tickets.experiments.elsewhere.spread import (
    Elsewhere,
    list_trainings,
    make_folder,
    make_source,
    read_all,
    wait_until,
)


def test_workers_that_do_not_see_the_folder_say_so_and_begin_no_second_one(tmp_path: Path) -> None:
    run, hidden = tmp_path / "run", tmp_path / "hidden"

    def out_of_sight(call: Callable[[], object]) -> object:
        run.rename(hidden)
        try:
            result = call()
            assert not run.exists(), "a second folder was begun"
        finally:
            hidden.rename(run)
        return result

    source = make_source()
    with pytest.raises(FileNotFoundError, match=f"workers must see the run folder at the path .*{run}, but "):
        run_experiment(make_folder(run, source), source, executor=Elsewhere(out_of_sight))
    assert not run.exists(), "nothing was trained"


def test_a_folder_of_the_same_name_on_another_disk_is_not_taken_for_the_run(tmp_path: Path) -> None:
    run, hidden, source = tmp_path / "run", tmp_path / "hidden", make_source()
    run_experiment(make_folder(run, source, num_levels=0), source)

    def elsewhere(call: Callable[[], object]) -> object:
        run.rename(hidden)
        run.mkdir()
        try:
            result = call()
            assert list(run.iterdir()) == []
            run.rmdir()
        finally:
            hidden.rename(run)
        return result

    with pytest.raises(FileNotFoundError, match="does not find its order there"):
        run_experiment(make_folder(run, source), source, executor=Elsewhere(elsewhere))


def test_an_order_that_was_altered_is_not_unpickled(tmp_path: Path) -> None:
    source = make_source()
    with make_folder(tmp_path, source).opened() as folder, placing_order(folder, source) as order:
        order.path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        failure = fill_order(order, 0)
    assert isinstance(failure, Failure)
    with pytest.raises(ValueError, match="must be as the driver wrote it, but is not"):
        failure.raise_here()


def test_where_nothing_can_be_pickled_for_others_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)  # what Python takes for missing
    source = make_source()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lottery-tickets\[cluster\]'"):
        run_experiment(make_folder(tmp_path / "run", source), source, executor=Elsewhere())


@pytest.mark.parametrize(("name", "value"), [("torch", "1.0"), ("cpu_capability", "NO AVX"), ("python", "2.7")])
def test_a_worker_of_another_environment_is_refused_because_its_bits_may_differ(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = describe_environment
    monkeypatch.setattr(orders, "describe_environment", lambda **settings: {**describe(**settings), name: value})
    source = make_source()
    with pytest.raises(ValueError, match=f"workers must have the environment of their driver.*{name} is .*{value}"):
        run_experiment(make_folder(tmp_path / "run", source), source, executor=Elsewhere())


class Gate:
    """Has trainings wait, so that a test may look at a worker in mid-training."""

    def __init__(self) -> None:
        self.is_reached, self.may_go_on = threading.Event(), threading.Event()


@contextmanager
def waiting_worker(
    place: Path, source: WorkloadSource, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Gate, list[object]]]:
    """Gives a worker of a driver that was killed, in the middle of the first training of replicate 0."""
    gate, outcome = Gate(), list[object]()
    train = WorkloadSubject.train

    def train_slowly(subject: WorkloadSubject, *arguments: Any, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - of `train`
        if threading.current_thread() is thread:
            gate.is_reached.set()
            assert gate.may_go_on.wait(100)
        return train(subject, *arguments, **settings)

    monkeypatch.setattr(WorkloadSubject, "train", train_slowly)
    folder = make_folder(place, source)
    with folder.opened() as opened:
        placed = placing_order(opened, source)
        order = placed.__enter__()
        thread = threading.Thread(target=lambda: outcome.append(fill_order(order, 0)))
        thread.start()
        assert gate.is_reached.wait(100)
    try:
        yield gate, outcome
    finally:
        gate.may_go_on.set()
        thread.join()


def test_a_worker_that_outlives_its_driver_ends_its_training_and_the_next_driver_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, source = tmp_path / "run", make_source()
    with waiting_worker(run, source, monkeypatch) as (gate, outcome):
        driver = threading.Thread(target=lambda: run_experiment(make_folder(run, source), source))
        driver.start()
        wait_until(lambda: "waiting for it" in caplog.text)
        assert list_trainings(run) == {}
        gate.may_go_on.set()
        wait_until(lambda: outcome)
        assert "replicate-0/level-00-ticket" in list_trainings(run), "its training was lost"
        first = list_trainings(run)
        driver.join()
    assert outcome == [None]
    assert first.items() < list_trainings(run).items()
    run_experiment(make_folder(tmp_path / "here", source), source)
    assert read_all(run) == read_all(tmp_path / "here")
    assert [check for check in verify_run(run) if check.problem] == []


def test_a_folder_in_which_a_worker_trains_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may only be gone on with as it was begun: what the worker will write is of that run."""
    run, source = tmp_path / "run", make_source()
    other = make_source(num_steps=21)
    with (
        waiting_worker(run, source, monkeypatch),
        pytest.raises(ValueError, match="num_steps is 20 there and 21 here"),
    ):
        run_experiment(make_folder(run, other), other)


def test_a_worker_whose_folder_was_removed_writes_nothing_into_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, source = tmp_path / "run", make_source()
    with waiting_worker(run, source, monkeypatch) as (gate, outcome):
        run.rename(tmp_path / "removed")
        with make_folder(run, make_source(num_steps=21)).opened():
            gate.may_go_on.set()
            wait_until(lambda: outcome)
            assert list_trainings(run) == {}
            assert not (run / "replicate-0").exists()
    [failure] = outcome
    assert isinstance(failure, Failure)
    with pytest.raises(ValueError, match="must stay while it is trained, but was removed; nothing was written"):
        failure.raise_here()


def test_a_worker_stops_before_its_next_training_when_its_driver_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source()
    with make_folder(tmp_path, source).opened() as folder, placing_order(folder, source) as order:
        save = type(folder).save

        def save_and_withdraw(*arguments: Any) -> None:  # noqa: ANN401 - of `save`
            save(*arguments)
            order.path.unlink()

        monkeypatch.setattr(type(folder), "save", save_and_withdraw)
        assert fill_order(order, 0) is None
    assert list(list_trainings(tmp_path)) == ["replicate-0/level-00-ticket"]
    assert fill_order(replace(order), 1) is not None, "an order that was taken away is not begun"


def test_two_drivers_at_once_are_one_too_many(tmp_path: Path) -> None:
    source, said = make_source(), list[str]()

    def second(call: Callable[[], object]) -> object:
        with pytest.raises(ValueError, match="must be used by one process at a time") as caught:
            run_experiment(make_folder(tmp_path / "run", source), source, executor=Elsewhere())
        said.append(str(caught.value))
        return call()

    run_experiment(make_folder(tmp_path / "run", source), source, executor=Elsewhere(second))
    assert len(said) == 2
    assert not list(tmp_path.rglob("*.part")), "the order is taken away"


def test_leftovers_of_a_held_folder_stay_and_locks_that_nobody_holds_go(tmp_path: Path) -> None:
    names = {"held": ".a.00.lottery-tickets.part", "free": ".b.00.lottery-tickets.part", "done": "level-00-ticket"}
    for name, content in names.items():
        (tmp_path / name / content).mkdir(parents=True)
        (tmp_path / name / ".lock").touch()
    with exclusive_lock(tmp_path / "held" / ".lock"):
        remove_leftovers(tmp_path)
    there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert there == ["done", "done/.lock", "done/level-00-ticket", "held", f"held/{names['held']}", "held/.lock"]


def test_a_replicate_is_held_by_one_and_its_lock_goes_with_it(tmp_path: Path) -> None:
    source = make_source()
    folder = make_folder(tmp_path, source)
    lock = tmp_path / "replicate-0" / ".lock"

    def look() -> None:
        with pytest.raises(InUseError, match="one process at a time"), exclusive_lock(lock):
            pass

    run_replicate(folder, source(), 0, after_training=look)
    assert not lock.exists()
    assert len(list_trainings(tmp_path)) == 2

"""How long the rest takes is told from the steps that were done, and not before there are enough of them."""

import math

import pytest

from lottery_tickets._core.training import pace
from lottery_tickets._core.training.pace import Pace, StepsBar, share_out, show_seconds


class Clock:
    """Gives the time that it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(pace, "Pace", lambda: Pace(clock))
    return clock


def test_what_comes_before_the_first_step_does_not_count() -> None:
    clock = Clock()
    watched = Pace(clock)
    for seconds, done in ((50.0, 0), (1.0, 1), (1.0, 3), (1.0, 5)):  # data are loaded for 50 seconds
        clock.now += seconds
        watched.take(done, num_at_work=1)
    assert watched.find_seconds_a_step(1) == 0.5
    assert not watched.is_settled


def test_a_process_that_is_idle_does_not_count() -> None:
    clock = Clock()
    watched = Pace(clock)
    for done, num_at_work in ((2, 2), (12, 2), (17, 1)):  # two processes of 5 steps a second each, then one
        watched.take(done, num_at_work)
        clock.now += 1
    assert watched.find_seconds_a_step(1) == pytest.approx(0.2)


def test_a_step_that_is_longer_than_the_memory_is_not_forgotten_while_it_is_looked_at() -> None:
    clock = Clock()
    watched = Pace(clock)
    watched.take(5, num_at_work=5)  # five trainings of one epoch have ended, in processes that nobody counts steps of
    for _ in range(140):  # looked at twice a second
        clock.now += 0.5
        watched.take(5, num_at_work=5)
    watched.take(10, num_at_work=5)
    assert watched.find_seconds_a_step(5) == 70.0
    assert watched.is_settled


def test_steps_that_processes_end_together_are_not_told_from_the_first_of_them() -> None:
    clock, told = Clock(), set[float | None]()
    watched = Pace(clock)
    for burst in range(3):  # each of five trainings takes 50 seconds, and they end within four
        for training in range(5):
            clock.now += 46.0 if burst and training == 0 else 1.0
            watched.take(5 * burst + training + 1, num_at_work=5)
            told.add(watched.find_seconds_a_step(5))
    assert told == {None, 50.0}


def test_what_is_long_ago_counts_less() -> None:
    clock, done = Clock(), 1
    watched = Pace(clock)
    for seconds_a_step in (1.0, 0.5):  # the machine has become twice as fast
        for _ in range(100):
            watched.take(done, num_at_work=1)
            done, clock.now = done + 1, clock.now + seconds_a_step
    assert watched.find_seconds_a_step(1) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("share", "alone"), [(1.0, 0.4), (0.5, 0.2), (0.25, 0.2), (0.8, 0.32), (None, 0.4)])
def test_one_alone_has_what_two_had_of_the_cores_but_one_core_at_most(share: float | None, alone: float) -> None:
    clock, done, had = Clock(), 0, 0.0
    watched = Pace(clock)
    for _ in range(10):
        done, had, clock.now = done + 5, had + 2 * (share or 0.0), clock.now + 1
        watched.take(done, 2, had if share is not None else None)
    assert watched.find_seconds_a_step(2) == pytest.approx(0.4)
    assert watched.find_seconds_a_step(1) == pytest.approx(alone)


def test_what_another_number_of_processes_took_is_forgotten_as_soon_as_this_is_known() -> None:
    clock, done = Clock(), 0
    watched = Pace(clock)
    for num_at_work, num_steps in ((2, 5), (1, 10)):
        for _ in range(10):
            done, clock.now = done + num_steps, clock.now + 1
            watched.take(done, num_at_work)
    assert watched.find_seconds_a_step(2) == pytest.approx(0.4)
    assert watched.find_seconds_a_step(1) == pytest.approx(0.1)


def test_each_stretch_that_is_left_is_told_at_its_own_pace(clock: Clock) -> None:
    with StepsBar(100, num_processes=2) as bar:
        for done in range(0, 60, 2):  # each of two processes does a step a second, with half of a core
            bar.show(done, left=lambda: [10.0, 30.0], num_at_work=2, cpu_seconds=done / 2)
            clock.now += 1
        assert bar._bar.postfix == "58 of 100 steps, about 20 s left"  # 10 s, and 20 steps alone, with a core


def follow(bar: StepsBar, clock: Clock, num_steps: int, total: int) -> None:
    """Shows steps of half a second each."""
    for done in range(1, num_steps + 1):
        bar.show(done, left=lambda done=done: [float(total - done)])  # type: ignore[misc] # of each its own
        clock.now += 0.5


def test_a_long_wait_is_foretold_once_and_only_when_there_are_enough_steps(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StepsBar(1006, num_processes=2) as bar:
        follow(bar, clock, 5, 1006)
        assert "left" not in capsys.readouterr().err
        bar.show(6, left=lambda: [1000.0])
        said = "this takes about 8.3 min: 0.5 s a step in each of 2 processes, by the first 5"
        assert said in capsys.readouterr().err
        follow(bar, clock, 20, 1006)
        assert "this takes" not in capsys.readouterr().err


def test_nothing_is_foretold_of_a_short_wait_and_nothing_said_when_nothing_is_shown(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StepsBar(12) as bar:
        follow(bar, clock, 7, 12)
        assert bar._bar.postfix == "7 of 12 steps, about 2 s left"
    with StepsBar(10**6, shown=False) as bar:
        follow(bar, clock, 100, 10**6)
    said = capsys.readouterr()
    assert "this takes" not in said.out + said.err


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
def test_the_process_that_ends_last_is_the_one_that_counts(num_processes: int) -> None:
    assert share_out([], num_processes) == [0] * num_processes
    assert max(share_out([4.0] * 6, num_processes)) == 4 * math.ceil(6 / num_processes)
    assert max(share_out([9.0, 1.0, 1.0], num_processes)) == (11 if num_processes == 1 else 9)


def test_durations_are_rounded_to_what_can_be_known() -> None:
    assert [show_seconds(seconds) for seconds in (59.0, 61.0, 3599.0, 3601.0)] == ["59 s", "1 min", "60 min", "1 h"]

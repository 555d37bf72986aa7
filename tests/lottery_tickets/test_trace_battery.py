"""A sample of the battery of benchmarks/studies/no_traces.py, which runs all its cases."""

import itertools
import random
import threading

import numpy as np
import pytest
import torch
from benchmarks.studies.no_traces import FUNCTIONS, LOADERS, MODELS, RACES, TRAININGS, list_cases, race

from lottery_tickets._core.determinism import seeded

EVERY = 29  # shares no factor with the numbers of models, loaders and modes, so that all of these are met


def test_the_battery_has_at_least_4000_cases_and_the_sample_meets_every_part() -> None:
    assert sum(1 for _ in list_cases()) >= 4000
    sample = list(itertools.islice(list_cases(), 0, None, EVERY))
    assert {case.function for case in sample} == {*FUNCTIONS, *TRAININGS}
    assert {(case.model, case.loader) for case in sample} == set(itertools.product(MODELS, LOADERS))


@pytest.mark.parametrize("function", [*FUNCTIONS, *TRAININGS])
def test_nothing_is_left(function: str) -> None:
    cases = [case for case in itertools.islice(list_cases(), 0, None, EVERY) if case.function == function]
    found = {case: case.find_traces() for case in cases}
    assert {case: traces for case, traces in found.items() if traces} == {}


def test_two_threads_that_measure_at_once_leave_nothing() -> None:
    assert race(2 * len(RACES)) == 0


def test_generators_come_back_when_seeded_blocks_of_two_threads_overlap() -> None:
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002 - the global one
    second_is_inside, first_has_left = threading.Event(), threading.Event()
    drawn: list[float] = []

    def second() -> None:
        with seeded(2):
            second_is_inside.set()
            assert first_has_left.wait(10)
            drawn.append(float(torch.rand(())))

    thread = threading.Thread(target=second)
    with seeded(1):
        thread.start()
        second_is_inside.wait(0.2)
        mine = float(torch.rand(()))
    first_has_left.set()
    thread.join()
    with seeded(1):
        assert float(torch.rand(())) == mine
    with seeded(2):
        assert [float(torch.rand(()))] == drawn
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (str(np.random.get_state()), random.getstate()) == states[1:]  # noqa: NPY002 - as above

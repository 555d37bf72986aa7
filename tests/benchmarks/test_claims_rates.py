"""The simulation behind docs/claims.md simulates what it says, and finds the rates it should."""

import numpy as np
import pytest
from benchmarks.studies.claims_rates import WORLDS, claim, make_scenarios, measure_cell, measure_peeking, simulate


@pytest.mark.parametrize("world", WORLDS)
def test_noise_has_mean_zero_and_variance_one(world: str) -> None:
    noise = WORLDS[world].noise(np.random.default_rng(0), (400, 1000))
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("scenario", make_scenarios(5))
def test_differences_have_their_true_means(world: str, scenario: str) -> None:
    truth = make_scenarios(5)[scenario].truth
    dense, tickets, controls = simulate(
        WORLDS[world], truth, 10, generator=np.random.default_rng(0), num_experiments=4000
    )
    assert (tickets - dense).mean(axis=(0, 2)) == pytest.approx(truth.ticket, abs=0.0005)
    for name, minus_ticket in truth.controls.items():
        assert (controls[name] - tickets).mean(axis=(0, 2)) == pytest.approx(minus_ticket, abs=0.0005)


def test_replicates_are_paired() -> None:
    world, truth = WORLDS["normal"], make_scenarios(1)["equal to dense"].truth
    dense, tickets, _ = simulate(world, truth, 10, generator=np.random.default_rng(0), num_experiments=4000)
    assert np.corrcoef(dense.ravel(), tickets.ravel())[0, 1] > 0.1
    assert (tickets - dense).std() < np.hypot(dense.std(), tickets.std())


@pytest.mark.parametrize("num_levels", [1, 5])
def test_false_verdicts_are_rare_with_normal_noise(num_levels: int) -> None:
    for scenario in make_scenarios(num_levels).values():
        for name, rate in measure_cell(WORLDS["normal"], scenario, 5, [0], 3000)["false"].items():
            assert rate["low"] < 0.05, name


def test_a_margin_case_alone_errs_as_often_as_it_may() -> None:
    cell = measure_cell(WORLDS["normal"], make_scenarios(1)["all on the margin"], 5, [0], 10_000)
    assert cell["false"]["matching"]["rate"] == pytest.approx(0.05, abs=0.008)


def test_alpha_is_passed_on() -> None:
    world, truth = WORLDS["normal"], make_scenarios(1)["all on the margin"].truth
    drawn = simulate(world, truth, 5, generator=np.random.default_rng(0), num_experiments=4000)
    assert claim(*drawn, alpha=0.2)["matching"].mean() == pytest.approx(0.2, abs=0.03)


def test_peeking_inflates_and_planned_looks_do_not() -> None:
    for row in measure_peeking(1000):
        if row["num_looks"] > 1:
            assert row["naive"]["low"] > 0.05
        assert row["planned"]["low"] < 0.05

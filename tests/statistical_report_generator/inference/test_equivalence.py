"""The tests on numbers agree with scipy and with a published example; nothing is NaN, whatever the spread."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from statistical_report_generator.inference.equivalence import (
    adjust_holm,
    compute_p_above,
    compute_p_apart,
    compute_p_below,
    compute_power,
    count_replicates,
    count_replicates_by_sign,
    stack_differences,
    summarise_differences,
)

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=12)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(deadline=None)
@given(VALUES, st.floats(-0.5, 0.5))
def test_p_values_are_those_of_scipy(values: list[float], bound: float) -> None:
    found = summarise_differences(values, np.zeros(len(values)))
    if float(found.std) < 1e-6:
        return
    for compute, alternative in ((compute_p_above, "greater"), (compute_p_below, "less")):
        expected = stats.ttest_1samp(values, bound, alternative=alternative).pvalue
        assert float(compute(found, bound)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(VALUES, st.floats(-0.5, 0.5))
def test_the_other_sign_swaps_the_sides(values: list[float], bound: float) -> None:
    zeros = np.zeros(len(values))
    above = compute_p_above(summarise_differences(values, zeros), bound)
    below = compute_p_below(summarise_differences(zeros, values), -bound)
    assert float(above) == pytest.approx(float(below), rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(VALUES, st.integers(-500, 500))
def test_sign_tests_count_what_lies_beyond_the_bound(values: list[float], thousandths: int) -> None:
    values, bound = [round(value, 3) for value in values], thousandths / 1000 + 0.0005
    found = summarise_differences(values, np.zeros(len(values)))
    for compute, num in (
        (compute_p_above, sum(v > bound for v in values)),
        (compute_p_below, sum(v < bound for v in values)),
    ):
        expected = stats.binomtest(num, len(values), 0.5, alternative="greater").pvalue
        assert float(compute(found, bound, "sign")) == pytest.approx(expected)


def test_sign_tests_leave_out_what_only_other_levels_have() -> None:
    parts = [summarise_differences([0.1, 0.2, 0.3, -0.1], 0.0), summarise_differences([0.1, 0.2], 0.0)]
    expected = [float(compute_p_above(part, 0.0, "sign")) for part in parts]
    assert compute_p_above(stack_differences(parts), 0.0, "sign").tolist() == expected == [0.3125, 0.25]


@pytest.mark.parametrize(("num", "critical"), [(4, 1.481), (10, 2.290), (20, 2.709)])
def test_what_stands_apart_is_told_by_the_published_critical_values(num: int, critical: float) -> None:
    """Of Grubbs 1969, table 1, two-sided at 5 %."""
    others = np.random.default_rng(num).normal(size=num - 1)

    def measure(last: float) -> tuple[float, float]:
        values = np.append(others, last)
        p_value, place = compute_p_apart(summarise_differences(values, 0.0))
        distance = abs(last - values.mean()) / values.std(ddof=1)
        assert place == num - 1
        return distance, float(p_value)

    for last in -np.geomspace(3, 1000, 200):
        distance, p_value = measure(last)
        if abs(distance - critical) > 0.001:
            assert (p_value < 0.05) == (distance > critical)


def test_nothing_stands_apart_among_two_or_among_equals() -> None:
    for values in ([], [1.0], [1.0, 9.0], [3.0, 3.0, 3.0, 3.0]):
        assert float(compute_p_apart(summarise_differences(values, [0.0] * len(values)))[0]) == 1
    assert float(compute_p_apart(summarise_differences([0.0, 0.0, 0.0, 0.0, 1.0], 0.0))[0]) < 0.001


@pytest.mark.parametrize("share", [0.7, 0.9, 1.0])
def test_the_replicates_of_a_sign_test_decide_as_often_as_is_said(share: float) -> None:
    num = count_replicates_by_sign(share, alpha=0.05, power=0.8, most=1000)
    assert num is not None
    values = np.where(np.random.default_rng(0).random((4000, num)) < share, 1.0, -1.0)
    found = compute_p_above(summarise_differences(values, 0.0), 0.0, "sign") <= 0.05
    assert found.mean() > 0.78
    assert count_replicates_by_sign(0.5, alpha=0.05, power=0.8, most=100) is None


@pytest.mark.parametrize("num", [2, 3, 10])
@pytest.mark.parametrize("shift", [0.0, 0.1, 1000.0])
def test_equal_differences_are_left_to_the_sign_test(num: int, shift: float) -> None:
    reference = shift + np.linspace(0.1, 0.9, num)
    found = summarise_differences(reference + 0.3, reference)
    assert float(found.std) == 0, "up to rounding all differences are equal"
    expected = stats.binomtest(num, num, 0.5, alternative="greater").pvalue
    assert float(compute_p_above(found, 0.2)) == pytest.approx(expected)
    assert float(compute_p_below(found, 0.2)) == 1
    assert float(compute_p_above(found, 0.3)) == 1, "on the bound itself nothing is shown"
    assert float(compute_p_below(found, 0.3)) == 1


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_differences_show_nothing(num: int) -> None:
    found = summarise_differences([5.0] * num, [0.0] * num)
    assert (float(found.std), int(found.num)) == (0, num)
    assert float(compute_p_above(found, 0.0)) == 1
    assert float(compute_p_below(found, 9.0)) == 1


def test_many_experiments_at_once_are_as_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 6))
    reference = np.random.default_rng(1).normal(size=(4, 1, 6))
    together = compute_p_above(summarise_differences(values, reference), 0.1)
    assert together.shape == (4, 3)
    for place in np.ndindex(4, 3):
        alone = summarise_differences(values[place], reference[place[0], 0])
        assert float(compute_p_above(alone, 0.1)) == pytest.approx(together[place])
    stacked = stack_differences(
        [summarise_differences(values[0, 0], 0.0), summarise_differences(values[0, 1, :4], 0.0)]
    )
    assert stacked.num.tolist() == [6, 4]


def test_holm_on_a_worked_example() -> None:
    """By hand: 4 tests, sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, and no less than those before.

    The p values are those of the example on Wikipedia's page "Holm-Bonferroni method": at 0.05 the first and the last
    are rejected.
    """
    adjusted = adjust_holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert (adjusted <= 0.05).tolist() == [True, False, False, True]


@settings(deadline=None)
@given(P_VALUES, st.floats(0.001, 0.3))
def test_holm_rejects_as_its_definition_says(p_values: list[float], alpha: float) -> None:
    """The smallest is compared with alpha / m, the next with alpha / (m - 1), until one fails."""
    rejected = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] * (len(p_values) - rank) > alpha:
            break
        rejected.add(place)
    assert set(np.flatnonzero(adjust_holm(p_values) <= alpha)) == rejected


@settings(deadline=None)
@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted, raw = adjust_holm(p_values), np.array(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(p_values))).all()
    assert adjust_holm([p_values, p_values]).tolist() == [adjusted.tolist()] * 2


@settings(deadline=None)
@given(P_VALUES)
def test_a_further_hypothesis_only_makes_holm_stricter(p_values: list[float]) -> None:
    assert (adjust_holm([*p_values, 1.0])[:-1] >= adjust_holm(p_values)).all()


def test_power_is_that_of_a_simulation() -> None:
    differences = np.random.default_rng(0).normal(0.001, 0.002, size=(20_000, 6))
    found = compute_p_above(summarise_differences(differences, 0.0), -0.002) <= 0.01
    assert compute_power(0.003, 0.002, 6, 0.01) == pytest.approx(found.mean(), abs=0.015)


def test_power_of_a_table() -> None:
    """A one-sided, one-sample t test of effect size 0.5 at 0.05 needs 27 cases for 80 %, as G*Power says."""
    assert count_replicates(0.5, 1.0, alpha=0.05, power=0.8, most=1000) == 27


@settings(deadline=None)
@given(st.floats(0.1, 3), st.floats(0.1, 3), st.sampled_from([0.05, 0.05 / 15]))
def test_the_number_of_replicates_is_the_smallest(distance: float, std: float, alpha: float) -> None:
    num = count_replicates(distance, std, alpha=alpha, power=0.8, most=2000)
    if num is None:
        assert compute_power(distance, std, 2000, alpha) < 0.8
        return
    assert compute_power(distance, std, num, alpha) >= 0.8
    assert compute_power(distance, std, num - 1, alpha) < 0.8


def test_replicates_without_spread_or_distance() -> None:
    assert count_replicates(0.0, 1.0, alpha=0.05, power=0.8, most=1000) is None
    assert count_replicates(0.1, 0.0, alpha=0.05, power=0.8, most=1000) == 5, "0.5**5 is the first below 0.05"
    assert count_replicates(1e300, 1e-3, alpha=0.05, power=0.8, most=1000) == 2
    assert math.isfinite(compute_power(1e300, 1e-300, 5, 1e-9))

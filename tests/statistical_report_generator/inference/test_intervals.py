"""Means and intervals agree with scipy and with a textbook; differences are paired by replicate."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from statistical_report_generator.claims import assess_claims
from statistical_report_generator.inference.intervals import Interval, compute_t_interval, summarise_experiment
from tests.statistical_report_generator.summaries import make_results

VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_that_of_scipy(values: list[float], confidence: float) -> None:
    interval = compute_t_interval(values, confidence)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= interval.mean <= interval.high
    if stats.sem(values) > 1e-12:
        expected = stats.t.interval(confidence, len(values) - 1, sum(values) / len(values), stats.sem(values))
        assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_interval_of_a_table() -> None:
    """With 4 degrees of freedom t at 97.5 % is 2.776 in every table; 1 to 5 have mean 3 and deviation sqrt(2.5)."""
    interval = compute_t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half_width = 2.776 * math.sqrt(2.5) / math.sqrt(5)
    assert interval.mean == 3
    assert (interval.low, interval.high) == pytest.approx((3 - half_width, 3 + half_width), abs=1e-3)


def test_a_single_replicate_has_no_interval_and_equal_ones_a_point() -> None:
    assert compute_t_interval([0.5]) == Interval(0.5, None, None, 1)
    assert compute_t_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 3)


def test_no_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be made of at least one value"):
        compute_t_interval([])


ACCURACIES = {
    (0, "ticket"): [0.90, 0.94, 0.92],
    (1, "ticket"): [0.91, 0.95, 0.93],
    (1, "random"): [0.70, 0.76, 0.71],
}


def test_differences_are_paired_by_replicate() -> None:
    dense, ticket, control = summarise_experiment(make_results(ACCURACIES))
    assert ticket.minus_dense.mean == pytest.approx(0.01)
    assert ticket.minus_dense.low == pytest.approx(0.01), "every replicate gains one point, so the interval is a point"
    assert ticket.value.low is not None
    assert ticket.value.low < 0.9
    assert dense.minus_dense.mean == 0
    assert control.minus_ticket == compute_t_interval([0.70 - 0.91, 0.76 - 0.95, 0.71 - 0.93])
    assert [(s.level, s.branch) for s in (dense, ticket, control)] == list(ACCURACIES)
    assert (ticket.density, ticket.step.mean, ticket.step_over_dense.mean) == (0.8, 200, 2)


def test_the_order_of_rows_does_not_matter_to_the_pairs() -> None:
    results = make_results(ACCURACIES)
    mixed = {**results, "trainings": sorted(results["trainings"], key=lambda row: (row["level"], -row["replicate"]))}
    for a, b in zip(summarise_experiment(results), summarise_experiment(mixed), strict=True):
        assert a.minus_dense.mean == pytest.approx(b.minus_dense.mean)
        assert a.minus_dense.low == pytest.approx(b.minus_dense.low)


def test_replicates_without_a_partner_are_left_out() -> None:
    _, ticket, control = summarise_experiment(make_results({**ACCURACIES, (1, "ticket"): [0.91, 0.95]}))
    assert (ticket.minus_dense.num_replicates, ticket.step_over_dense.num_replicates) == (2, 2)
    assert control.minus_ticket == compute_t_interval([0.70 - 0.91, 0.76 - 0.95])
    assert control.minus_dense.num_replicates == 3


def test_the_moment_is_chosen() -> None:
    assert summarise_experiment(make_results(ACCURACIES), moment="end")[0].value.mean == pytest.approx(0.82)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"simulated": True}, {}, "a simulation trains no ticket"),
        ({}, {"metric": "perplexity"}, r"must have 'perplexity' at 'early_stop', but have \['step', 'test_accuracy'\]"),
        ({}, {"moment": "start"}, r"must have 'test_accuracy' at 'start', but have \[\]"),
    ],
)
def test_results_that_say_nothing_are_refused(changes: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise_experiment(make_results(ACCURACIES, **changes), **settings)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("trainings", {"a": 1}, "'trainings' must be a list of objects, one a training"),
        ("trainings", [3], "'trainings' must be a list of objects, one a training"),
        ("branch", None, r"'branch' of trainings\[1\] must be a word, but is missing"),
        ("history", None, r"'history' of trainings\[1\] must be an object, but is missing"),
        ("replicate", None, r"'replicate' of trainings\[1\] must be a whole number, but is missing"),
        ("level", "1", r"'level' of trainings\[1\] must be a whole number, but is '1'; was it edited"),
        ("density", "x" * 200, r"'density' of trainings\[1\] must be a number, but is 'x{79}; was it edited"),
        ("density", 10**400, r"'density' of trainings\[1\] must be a number, but is 10{79}; was it edited"),
        ("history", {"end": {"test_accuracy": 10**400}}, r"must be a finite number in each row, but is 10{79} in that"),
        ("history", {"end": 3}, r"must have 'test_accuracy' at 'end', but have \[\]"),
        ("looks", 3, "'looks' of the results must be a list"),
        ("environments", 3, "'environments' of the results must be a list"),
        ("unidentified", [3], "'unidentified' of the results must be a list, of words"),
    ],
)
def test_results_that_were_edited_are_refused_by_their_place(name: str, value: object, words: str) -> None:
    results: dict[str, Any] = make_results({(0, "ticket"): [0.9, 0.8], (1, "ticket"): [0.9, 0.8]})
    at = results["trainings"][1] if name in results["trainings"][1] else results
    at[name] = value
    if value is None:
        del at[name]
    with pytest.raises(ValueError, match=words):
        assess_claims(results, metric="test_accuracy", moment="end")


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    results: dict[str, Any] = make_results({(0, "ticket"): [0.9, 0.8]})
    results["trainings"][1]["level"] = 10**5000
    with pytest.raises(ValueError, match=r"'level' .* must be .*, but is a number of thousands of digits"):
        assess_claims(results)

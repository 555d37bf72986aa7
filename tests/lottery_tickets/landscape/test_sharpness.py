"""Rises around the centre are those of functions that are known."""

import math

import pytest

from lottery_tickets.landscape.sharpness import find_rises


def test_rises_on_circles_of_functions_that_are_known() -> None:
    places = [place / 4 for place in range(-4, 5)]
    sloping = find_rises([[3 + x - 2 * y for x in places] for y in places], 3.0)
    assert [rise["radius"] for rise in sloping] == [0.25, 0.5, 0.75, 1.0]
    for rise in sloping:
        assert rise["mean_rise"] == pytest.approx(0, abs=1e-12)
        assert rise["largest_rise"] == pytest.approx(rise["radius"] * math.sqrt(5), rel=1e-2)
    fine = [place / 50 for place in range(-50, 51)]
    bowl = find_rises([[x * x + 4 * y * y for x in fine] for y in fine], 0.0)
    for rise in bowl:
        assert rise["mean_rise"] == pytest.approx(2.5 * rise["radius"] ** 2, rel=1e-2)
        assert rise["largest_rise"] == pytest.approx(4 * rise["radius"] ** 2, rel=1e-2)


def test_rises_that_meet_a_point_that_is_not_finite_are_not_known() -> None:
    losses: list[list[float | None]] = [[1.0] * 9 for _ in range(9)]
    losses[4][8] = None  # on the outermost circle only
    known = [rise["mean_rise"] for rise in find_rises(losses, 0.5)]
    assert known == [pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), None]
    assert find_rises(losses, None)[0]["largest_rise"] is None
    assert find_rises([[1.0]], 1.0) == []

"""Instability and barriers of a path are what their definitions say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery_tickets.connectivity.instability import summarise_path


@given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.data())
def test_figures_of_a_path_follow_their_definitions(accuracies: list[float], data: st.DataObject) -> None:
    losses = data.draw(st.lists(st.floats(0, 50), min_size=len(accuracies), max_size=len(accuracies)))
    alphas = [point / (len(losses) - 1) for point in range(len(losses))]
    found = summarise_path(alphas, losses, accuracies, 0.02)
    mean_error = ((1 - accuracies[0]) + (1 - accuracies[-1])) / 2
    instability = max(1 - accuracy for accuracy in accuracies) - mean_error
    line = [(1 - alpha) * losses[0] + alpha * losses[-1] for alpha in alphas]
    assert found["instability"] == instability
    assert instability >= 0
    assert found["stable"] is (instability < 0.02)
    assert found["barrier"] == pytest.approx(max(losses) - (losses[0] + losses[-1]) / 2, abs=1e-12)
    assert found["barrier_over_line"] == pytest.approx(max(map(float.__sub__, losses, line)), abs=1e-9)
    assert min(found["barrier"] or 0, found["barrier_over_line"] or 0) >= 0


def test_points_that_are_not_finite_count_as_the_worst() -> None:
    alphas = [0.0, 0.5, 1.0]
    found = summarise_path(alphas, [0.1, None, 0.3], [0.9, None, 0.7], 0.02)
    assert found["errors"] == [pytest.approx(0.1), None, pytest.approx(0.3)]
    assert (found["num_nonfinite"], found["losses"][1]) == (1, None)
    assert (found["barrier"], found["barrier_over_line"]) == (None, None)
    assert found["instability"] == pytest.approx(1 - 0.2)
    assert found["stable"] is False
    without = summarise_path(alphas, [0.1, None, 0.3], [None] * 3, 0.02)
    assert (without["errors"], without["instability"], without["stable"]) == (None, None, None)
    assert without["num_nonfinite"] == 1
    for losses, which in (([None, 1.0, 1.0], "first"), ([1.0, 1.0, None], "second")):
        with pytest.raises(ValueError, match=f"loss of the {which} network must be finite"):
            summarise_path(alphas, losses, [None] * 3, 0.02)

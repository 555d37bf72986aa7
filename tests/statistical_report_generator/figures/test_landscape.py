"""The figure of a landscape shows its losses, whatever of them is missing, and marks the centre."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from statistical_report_generator.figures.landscape import draw_loss_landscape
from statistical_report_generator.figures.style import save_figure

Rows = list[list[float | None]]


def make_results(losses: Rows, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    num_x, num_y = len(losses[0]), len(losses)
    results = {
        "mode": "plane",
        "x": np.linspace(-1, 1, num_x).tolist() if num_x > 1 else [0.0],
        "y": np.linspace(-2, 2, num_y).tolist() if num_y > 1 else [0.0],
        "losses": losses,
        "accuracies": [[None] * num_x] * num_y,
        "centre": {"loss": 0.1234567},
        "num_nonfinite": 0,
        "num_measured": num_x * num_y,
        "settings": {"seed": 7},
        **changes,
    }
    loaded: dict[str, Any] = json.loads(json.dumps(results, allow_nan=False))
    return loaded


def make_bowl(steepness: float) -> Rows:
    places = np.linspace(-1, 1, 9)
    return [[0.5 + steepness * float(x * x + y * y) for x in places] for y in places]


def draw_and_save(results: dict[str, Any], folder: Path) -> Figure:
    figure = draw_loss_landscape(results)
    save_figure(figure, folder / "figure.png")
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    return figure


def find_levels(figure: Figure) -> list[float]:
    filled = next(child for child in figure.axes[0].get_children() if isinstance(child, ContourSet))
    return [float(level) for level in np.asarray(filled.levels)]


def test_contours_are_of_the_losses_and_the_centre_is_marked(tmp_path: Path) -> None:
    figure = draw_and_save(make_results(make_bowl(0.1)), tmp_path)
    levels = find_levels(figure)
    assert levels[0] == pytest.approx(0.5)
    assert np.diff(levels) == pytest.approx([levels[1] - levels[0]] * (len(levels) - 1))
    (centre,) = figure.axes[0].get_lines()
    assert (list(np.asarray(centre.get_xdata())), list(np.asarray(centre.get_ydata()))) == ([0], [0])
    assert figure.axes[0].get_xlim() == (-1, 1)
    assert figure.axes[0].get_ylim() == (-2, 2)
    assert figure.axes[0].get_xlabel() == "x: along a random direction, in lengths of the weights"
    assert figure.get_suptitle() == "loss landscape: loss at the centre 0.1235; seed 7"


def test_losses_that_differ_much_have_logarithmic_levels() -> None:
    losses = make_bowl(50)
    losses[0][0] = 1e9  # which must not leave a single level for all others
    levels = find_levels(draw_loss_landscape(make_results(losses)))
    assert np.diff(np.log(levels)) == pytest.approx([np.log(levels[1] / levels[0])] * (len(levels) - 1))
    assert levels[-1] < 101


def test_missing_losses_are_left_out_and_said(tmp_path: Path) -> None:
    losses = make_bowl(1)
    losses[0][:4] = [None] * 4
    figure = draw_and_save(make_results(losses, num_nonfinite=4, num_measured=60, network="LeNet"), tmp_path)
    words = "LeNet: loss at the centre 0.1235; seed 7; 4 of 81 points not finite; 60 of 81 points measured"
    assert figure.get_suptitle() == words
    assert find_levels(figure)[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("value", "words"), [(None, "no loss is known"), (2.5, "one loss everywhere: 2.5")])
def test_a_plane_without_differences_says_so(tmp_path: Path, value: float | None, words: str) -> None:
    figure = draw_and_save(make_results([[value] * 3] * 3, centre={"loss": value}), tmp_path)
    assert [text.get_text() for text in figure.axes[0].texts] == [words]


def test_a_line_is_a_curve_of_loss_and_of_accuracy(tmp_path: Path) -> None:
    losses: Rows = [[1.0, None, 0.5]]
    results = make_results(losses, mode="line", accuracies=[[0.5, None, 0.75]])
    figure = draw_and_save(results, tmp_path)
    loss, accuracy = figure.axes
    for axes, values in ((loss, [1, np.nan, 0.5]), (accuracy, [0.5, np.nan, 0.75])):
        curve = next(line for line in axes.get_lines() if line.get_label() == axes.get_ylabel())
        np.testing.assert_array_equal(np.asarray(curve.get_ydata(), dtype=float), values)
        np.testing.assert_array_equal(np.asarray(curve.get_xdata(), dtype=float), results["x"])
    assert "0 is the model" in accuracy.get_xlabel()


@pytest.mark.parametrize("losses", [[[1.0]], [[1.0, 2.0]], [[1.0], [2.0], [3.0]]])
def test_a_single_row_column_or_point_is_a_curve(tmp_path: Path, losses: Rows) -> None:
    figure = draw_and_save(make_results(losses), tmp_path)
    curve = figure.axes[0].get_lines()[0]
    assert np.asarray(curve.get_ydata()).tolist() == [loss for row in losses for loss in row]
    assert len(figure.axes) == 1


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="results must hold at least one point to be drawn, got none"):
        draw_loss_landscape(make_results([[]]))

"""The figure of an early-bird run shows the history, nothing else, whatever of it is missing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from statistical_report_generator.figures.early_bird import draw_early_bird
from statistical_report_generator.figures.style import save_figure

FIGURES = (
    "correlation",
    "start_correlation",
    "corrected_distance",
    "corrected_start_distance",
    "movement",
    "loss",
    "gap",
)


def make_check(number: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "epoch": 5 * number,
        "step": 90 * number,
        "correlation": 1 - 0.1 / number,
        "start_correlation": 1 - 0.05 * number,
        "corrected_distance": 0.2 / number,
        "corrected_start_distance": 0.1 * number,
        "queue_distances": [0.01 * place for place in range(1, min(number, 5))],
        "movement": 0.2 * number,
        "gap": 0.1 * number,
        "loss": 2 / number,
        "start_loss": 2.5,
        **changes,
    }


def make_results(checks: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    results = {
        "method": "magnitude_ranking",
        "convergence_threshold": 0.95,
        "convergence_epoch": None,
        "verdict": "still changing",
        "checkpoints": checks,
        "settings": {"counts": "epochs", "rule": {"distance_threshold": 0.1}},
        **changes,
    }
    loaded: dict[str, Any] = json.loads(json.dumps(results, allow_nan=False))
    return loaded


def read(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    """Returns the points of the line of that label."""
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return to_floats(line.get_xdata()), to_floats(line.get_ydata())


def to_floats(values: ArrayLike) -> list[float]:
    floats: list[float] = np.asarray(values, dtype=float).tolist()
    return floats


def list_labels(axes: Axes) -> list[str]:
    return [str(line.get_label()) for line in axes.get_lines()]


def draw_and_save(results: dict[str, Any], folder: Path) -> Figure:
    figure = draw_early_bird(results)
    save_figure(figure, folder / "figure.png")
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    return figure


def test_the_lines_are_the_history(tmp_path: Path) -> None:
    checks = [make_check(number) for number in range(1, 7)]
    figure = draw_and_save(make_results(checks, convergence_epoch=20, verdict="converged"), tmp_path)
    ranks, distances, movement, loss = figure.axes
    epochs = [5.0 * number for number in range(1, 7)]
    lines = {
        "correlation": (ranks, "with the check before"),
        "start_correlation": (ranks, "with the start"),
        "corrected_distance": (distances, "from the check before"),
        "corrected_start_distance": (distances, "from the start"),
        "movement": (movement, "of the norm at the start"),
        "loss": (loss, "training, mean since the check before"),
        "gap": (loss, "what exchanged targets add, on a probe"),
    }
    assert lines.keys() == set(FIGURES)
    for name, (axes, label) in lines.items():
        assert read(axes, label) == (epochs, [check[name] for check in checks])
    assert read(ranks, "stable from 0.95")[1] == [0.95, 0.95]
    assert read(distances, "chance")[1] == [1, 1]
    assert read(loss, "at the start")[1] == [2.5, 2.5]
    assert read(ranks, "converged at epoch 20")[0] == [20, 20]
    for axes in figure.axes:
        assert [20, 20] in [to_floats(line.get_xdata()) for line in axes.get_lines()]
    assert (ranks.get_title(), loss.get_xlabel()) == ("early-bird ticket: converged", "epoch")
    assert loss.get_xscale() == "linear"


def test_no_line_says_converged_where_nothing_has(tmp_path: Path) -> None:
    figure = draw_and_save(make_results([make_check(1), make_check(2)]), tmp_path)
    assert not any("converged" in label for axes in figure.axes for label in list_labels(axes))


def test_mask_distance_shows_the_queue_and_its_threshold(tmp_path: Path) -> None:
    checks = [make_check(number) for number in range(1, 7)]
    ranks, distances, *_ = draw_and_save(make_results(checks, method="mask_distance"), tmp_path).axes
    assert not any(label.startswith("stable") for label in list_labels(ranks))
    assert read(distances, "stable up to 0.1 of all weights")[1] == [0.1, 0.1]
    queue = read(distances, "largest in the queue, share of all weights")[1]
    assert math.isnan(queue[0])
    assert queue[1:] == [0.01, 0.02, 0.03, 0.04, 0.04]


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        ([1, 2, 3, 4, 6, 8, 12], "log"),
        ([10, 100, 1000, 10000], "log"),
        ([20, 40, 60, 80, 85], "linear"),
        ([1, 100, 200, 300], "linear"),
        ([1, 2, 8], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_checks_are(steps: list[int], scale: str, tmp_path: Path) -> None:
    checks = [make_check(number, step=step, epoch=step / 18) for number, step in enumerate(steps, 1)]
    last = draw_and_save(make_results(checks, settings={"counts": "steps"}), tmp_path).axes[-1]
    assert (last.get_xscale(), last.get_xlabel()) == (scale, "step")
    assert read(last, "training, mean since the check before")[0] == steps


def test_unknown_losses_and_steps_leave_no_panel_and_no_axis(tmp_path: Path) -> None:
    checks = [make_check(number, loss=None, start_loss=None, gap=None, step=None) for number in range(1, 5)]
    results = make_results(checks)
    del results["settings"]
    figure = draw_and_save(results, tmp_path)
    assert len(figure.axes) == 3
    assert figure.axes[-1].get_xlabel() == "epoch"


@pytest.mark.parametrize("num_good", [0, 1, 3])
def test_diverged_checks_leave_gaps(num_good: int, tmp_path: Path) -> None:
    nothing: dict[str, Any] = {**dict.fromkeys(FIGURES), "queue_distances": []}
    checks = [*(make_check(number) for number in range(1, num_good + 1)), make_check(num_good + 1, **nothing)]
    for method in ("magnitude_ranking", "mask_distance"):
        figure = draw_and_save(make_results(checks, method=method, verdict="diverged"), tmp_path)
        assert len(figure.axes) == (4 if num_good else 3)
        values = read(figure.axes[0], "with the check before")[1]
        assert [math.isnan(value) for value in values] == [False] * num_good + [True]


def test_one_check_is_enough_and_none_is_not(tmp_path: Path) -> None:
    figure = draw_and_save(make_results([make_check(1)]), tmp_path)
    assert read(figure.axes[0], "with the start") == ([5], [0.95])
    with pytest.raises(ValueError, match=r"at least one check to be drawn, got none; train until"):
        draw_early_bird(make_results([]))

"""Figures of connectivity show every pair and every row, gaps where nothing is known, and 0 on a logarithmic axis."""

from typing import Any

import numpy as np
import pytest

from statistical_report_generator.figures.connectivity import draw_error_path, draw_instability
from statistical_report_generator.inference.intervals import compute_t_interval


def make_pair(*, has_error: bool = True) -> dict[str, Any]:
    end = {"loss": 0.5, "accuracy": 0.9, "error": 0.1} if has_error else {"loss": 0.5, "accuracy": None, "error": None}
    errors = [0.1, None, 0.1] if has_error else None
    return {"alphas": [0, 0.5, 1], "errors": errors, "losses": [0.5, None, 0.5], "first": end, "second": end}


def test_the_path_has_a_line_a_pair_and_the_limit_of_stability() -> None:
    results = {"pairs": [make_pair(), make_pair()], "settings": {"threshold": 0.02}}
    axes = draw_error_path(results, "title").axes[0]
    first, second, limit = axes.get_lines()
    for line in (first, second):
        assert np.asarray(line.get_ydata()) == pytest.approx([10, np.nan, 10], nan_ok=True)  # with a gap
    assert np.asarray(limit.get_ydata()) == pytest.approx([12, 12])
    assert axes.get_ylabel() == "error, %"
    axes = draw_error_path({"pairs": [make_pair(has_error=False)], "settings": {"threshold": 0.02}}).axes[0]
    assert axes.get_ylabel() == "loss"
    assert len(axes.get_lines()) == 1
    with pytest.raises(ValueError, match="at least one pair"):
        draw_error_path({"pairs": [], "settings": {"threshold": 0.02}})


def test_instability_has_a_line_a_network_and_zero_on_its_axis() -> None:
    rows = [
        {"step": step, "network": network, "instability": compute_t_interval([0.1, 0.2]) if step else
         {"mean": 0.3, "low": None, "high": None, "num_replicates": 1}}
        for step in (15, 0, 150)
        for network in ("dense", "subnetwork")
    ]  # fmt: skip
    figure = draw_instability({"one": rows, "other": rows[:2]})
    assert [axes.get_title() for axes in figure.axes] == ["one", "other"]
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [float(place) for place in axes.get_xticks()] == [5, 15, 150]
    figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "15", "150"]
    dense = axes.get_lines()[0]
    assert np.asarray(dense.get_ydata()) == pytest.approx([30, 15, 15])
    assert axes.get_legend_handles_labels()[1] == ["stable below 2%", "dense", "subnetwork"]
    no_panels: list[dict[str, Any]] = [{}, {"one": []}]
    for panels in no_panels:
        with pytest.raises(ValueError, match="at least one row in each panel"):
            draw_instability(panels)
    with pytest.raises(TypeError, match="must be an Interval or its dict, got 3"):
        draw_instability({"one": [{"step": 0, "network": "dense", "instability": 3}]})


def test_networks_at_a_single_step_stand_beside_each_other() -> None:
    interval = compute_t_interval([0.1, 0.2])
    rows = [{"step": 0, "network": network, "instability": interval} for network in ("dense", "a", "b")]
    axes = draw_instability({"one": rows}).axes[0]
    low, high = axes.get_xlim()
    places = [
        float(np.asarray(line.get_xdata())[0]) for line in axes.get_lines() if line.get_marker() in {"o", "s", "^"}
    ]
    assert max(places) / min(places) < (high / low) ** 0.1

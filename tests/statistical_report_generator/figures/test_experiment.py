"""Branches of one density stand side by side, and each run is a point beside the bar of its mean."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from statistical_report_generator.figures.experiment import draw_accuracy_over_density
from statistical_report_generator.inference.intervals import collect_values, summarise_experiment
from tests.statistical_report_generator.claims.made_up import DENSE, move, with_controls
from tests.statistical_report_generator.summaries import make_results


def test_no_branch_hides_another_and_all_runs_are_there() -> None:
    results = make_results({(0, "ticket"): DENSE, **with_controls(2, move(0.0), *[move(-0.02)] * 3)})
    values = collect_values(results, "early_stop", "test_accuracy")
    [axes] = draw_accuracy_over_density(summarise_experiment(results), "title", values).axes
    means = [line for line in axes.get_lines() if str(line.get_marker()) in "os^v"]
    last = [float(np.asarray(line.get_xdata())[-1]) for line in means]
    assert len(set(last)) == 4
    assert last[0] == pytest.approx(64)
    runs = [np.asarray(found.get_offsets()) for found in axes.collections if isinstance(found, PathCollection)]
    assert [len(points) for points in runs] == [12, 6, 6, 6]
    assert sorted(runs[1][:, 1]) == pytest.approx(sorted(100 * value for value in move(-0.02)))
    assert not set(np.concatenate(runs)[:, 0]) & set(last)
    assert all(80 * 0.8 * 0.9 < x < 80 * 0.8 * 1.1 for x in last)


def test_without_runs_there_are_no_points() -> None:
    results = make_results({(0, "ticket"): DENSE, (1, "ticket"): move(0.0)})
    [axes] = draw_accuracy_over_density(summarise_experiment(results), "title").axes
    assert sum(np.asarray(c.get_offsets()).size for c in axes.collections if isinstance(c, PathCollection)) == 0

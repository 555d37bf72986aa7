"""The figure of scores has a line for each score and scope, and refuses scores that it has no colour for."""

from typing import Any

import numpy as np
import pytest

from statistical_report_generator.figures.score_worth import draw_score_worth

LIMITS = {"net": {"accuracy": (0.0, 100.0), "loss": (0.1, 4.0)}}


def make_row(score: str, sparsity: float, *, scope: str = "global") -> dict[str, Any]:
    value = {"mean": 0.9 - sparsity, "low": 0.8 - sparsity, "high": 1 - sparsity, "values": []}
    return {"score": score, "scope": scope, "sparsity": sparsity, "accuracy": value, "loss": value}


ROWS = [
    make_row("dense", 0.0),
    *(make_row("magnitude", sparsity, scope=scope) for scope in ("global", "row", "layer") for sparsity in (0.2, 0.5)),
    make_row("Wanda", 0.5),
]


def test_each_score_and_scope_has_a_line() -> None:
    accuracy, loss = draw_score_worth({"net": ROWS}, LIMITS).axes
    for axes, scale in ((accuracy, 100), (loss, 1)):
        lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        assert list(lines) == ["dense", "magnitude", "magnitude, rows", "Wanda"], "layers are not drawn"
        points = lines["magnitude"].lines[0].get_xydata()
        assert np.asarray(points) == pytest.approx(np.array([[0.8, 0.7 * scale], [0.5, 0.4 * scale]]))
    assert (accuracy.get_title(), loss.get_title()) == ("net", "")
    assert (accuracy.get_ylim(), loss.get_ylim()) == ((0, 100), (0.1, 4))
    assert [label.get_text() for label in loss.get_xticklabels()] == ["20", "50"]
    assert loss.get_yscale() == "log"


@pytest.mark.parametrize("rows", [ROWS[1:], [*ROWS, make_row("new", 0.5)]])
def test_rows_that_cannot_be_drawn_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"rows of 'net' must be of 'dense' and of some of magnitude, .*, got \["):
        draw_score_worth({"net": rows}, LIMITS)

"""The figure of changes by exponent: what its points say is what was found."""

import numpy as np
import pytest

from statistical_report_generator.figures.changes import draw_changes
from statistical_report_generator.figures.style import Drawing
from tests.statistical_report_generator.every_kind import KINDS


def test_points_say_what_was_found_beside_what_is_expected() -> None:
    found = KINDS["changes"]
    figure = draw_changes(found["updates"], found["overlaps"]["pairs"], "what moved")
    assert isinstance(figure, Drawing)
    said = [mark.words for mark in figure.marks]
    assert "one: 50 % of 100 of 2^-7" in said
    assert "one and two, found: 30 % of 100 of 2^-7" in said
    assert "one and two, expected: 20 % of 100 of 2^-7" in said
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]  # type: ignore[union-attr] # it has one
    assert labels[-1] == "expected, nothing given"


def test_one_training_has_one_panel_and_none_is_refused() -> None:
    updates = dict(list(KINDS["changes"]["updates"].items())[:1])
    assert len(draw_changes(updates, []).axes) == 1
    with pytest.raises(ValueError, match="at least one training"):
        draw_changes({}, [])


def test_zeros_stand_beside_the_least_exponent_and_not_far_below() -> None:
    rows = [{"exponent": exponent, "num_weights": 10, "num_changed": 5} for exponent in (-127, -18, -17, 0)]
    figure = draw_changes({"one": {"overall": {"by_exponent": rows}}}, [])
    [axes] = figure.axes
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [-20, -18, -17, 0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert dict(zip(axes.get_xticks(), names, strict=True))[-20] == "zeros"
    assert isinstance(figure, Drawing)
    assert figure.marks[0].words == "one: 50 % of 10 of zeros"

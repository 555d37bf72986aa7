"""The points of a figure are where they are drawn, and say what they are."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from statistical_report_generator.figures.pictures import make_picture
from statistical_report_generator.figures.style import add_mark, create_figure, draw_intervals, render_figure
from statistical_report_generator.inference.intervals import Interval


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_marks_lie_where_their_points_are_drawn(scale: str) -> None:
    figure = create_figure(5, 3)
    axes = figure.add_subplot(1, 2, 2)
    places = [(1.0, 10.0), (20.0, 300.0), (500.0, 20.0)]
    for x, y in places:
        axes.plot([x], [y], "s", color="#ff0000", markersize=6, markeredgewidth=0)
        add_mark(axes, x, y, f"{x:g}")
    axes.set_xscale(scale)
    axes.set_yscale(scale)
    axes.set_ylabel("a label that takes room")
    picture = make_picture(figure, "a")
    assert [target.words for target in picture.targets] == ["1", "20", "500"]
    assert picture.width == 5
    with Image.open(io.BytesIO(render_figure(figure, "a.png"))) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    for target in picture.targets:
        row, column = round(target.top * pixels.shape[0]), round(target.left * pixels.shape[1])
        assert pixels[row, column].tolist() == [255, 0, 0]


def test_marks_outside_of_the_axes_or_nowhere_are_left_out() -> None:
    figure = create_figure(3, 2)
    axes = figure.add_subplot()
    axes.set_xlim(0, 1)
    for x, y in [(0.5, 0.5), (2.0, 0.5), (float("nan"), 0.5), (0.5, float("inf"))]:
        add_mark(axes, x, y, "\x00words")
    assert [target.words for target in make_picture(figure, "a").targets] == ["[U+0000]words"]


def test_intervals_say_what_they_are_and_of_how_many_runs() -> None:
    figure = create_figure(3, 2)
    axes = figure.add_subplot()
    one: dict[str, Any] = {"mean": 1.0, "low": None, "high": None}
    intervals: list[Interval | dict[str, Any]] = [Interval(0.5, 0.4, 0.7, 3), one]
    draw_intervals(axes, [1, 2], intervals, scale=100, colour="red", marker="s", label="a", names=["at 1", "at 2"])
    draw_intervals(axes, [3], [one], scale=1, colour="red", marker="s", label="b", form=".0f")
    words = [target.words for target in make_picture(figure, "a").targets]
    assert words == ["a at 1: 50.00 [40.00, 70.00], n = 3", "a at 2: 100.0", "b: 1"]


def test_a_figure_of_others_has_no_marks() -> None:
    figure = Figure()
    add_mark(figure.add_subplot(), 0.5, 0.5, "words")
    assert make_picture(figure, "a").targets == []

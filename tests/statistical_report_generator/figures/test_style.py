"""Error bars end where intervals do, and a file is the same each time it is written."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lottery_tickets._core.files import is_leftover
from statistical_report_generator.figures.style import create_figure, draw_intervals, draw_level, save_figure
from statistical_report_generator.inference.intervals import Interval

INTERVALS = [Interval(0.5, 0.4, 0.7, 3), Interval(0.25, None, None, 1)]


def draw(*, as_dicts: bool) -> Figure:
    figure = create_figure(3, 2)
    axes = figure.add_subplot()
    intervals = [asdict(one) for one in INTERVALS] if as_dicts else INTERVALS
    draw_intervals(axes, [1, 2], intervals, scale=100, colour="red", marker="s", label="a", linewidth=3)
    draw_level(axes, 10, "level")
    return figure


@pytest.mark.parametrize("as_dicts", [False, True])
def test_bars_end_where_intervals_do(as_dicts: bool) -> None:
    [axes] = draw(as_dicts=as_dicts).axes
    means = axes.get_lines()[0]
    assert np.asarray(means.get_ydata()).tolist() == [50, 25]
    assert means.get_linewidth() == 3
    [bars] = [found for found in axes.collections if isinstance(found, LineCollection)]
    ends = [np.asarray(bar)[:, 1].tolist() for bar in bars.get_segments()]
    assert ends == [pytest.approx([40, 70]), [25, 25]]
    assert axes.get_legend_handles_labels()[1] == ["level", "a"]


STARTS = {"figure.png": b"\x89PNG", "figure.svg": b"<?xml", "figure.pdf": b"%PDF", "FIGURE.PDF": b"%PDF"}


@pytest.mark.parametrize("name", STARTS)
def test_a_file_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        save_figure(draw(as_dicts=False), tmp_path / folder / name)
    content = (tmp_path / "first" / name).read_bytes()
    assert content == (tmp_path / "second" / name).read_bytes()
    assert content.startswith(STARTS[name])
    for word in (b"dc:date", b"Software", b"Date"):
        assert word not in content


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "figure.pdf.old"])
def test_a_format_that_is_not_known_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.pdf, \.png or \.svg, but is 'figure"):
        save_figure(draw(as_dicts=False), tmp_path / "folder" / name)
    assert not any(tmp_path.iterdir())


def test_what_a_kill_leaves_of_a_figure_is_told_from_files_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def fail(aside: Path, _: Path) -> None:
        seen.append(aside)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    (tmp_path / "figure.png").write_bytes(b"old")
    with pytest.raises(OSError, match=r"No space left on device: '.*figure.png'"):
        save_figure(draw(as_dicts=False), tmp_path / "figure.png")
    assert is_leftover(seen[0], of="figure.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"figure.png": b"old"}

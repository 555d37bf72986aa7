"""Words of results reach every page, whatever characters they hold."""

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.figures.style import create_figure, render_figure
from statistical_report_generator.figures.words import show_words, tell_apart
from statistical_report_generator.words import clean, spell_out
from tests.statistical_report_generator.rendering.reports import make_experiment

NAMES = {
    "letters that no font has": "模型",
    "a face": "😀",
    "formulas that are none": "$x_$ $\\frac$",
    "text turned around, and controls": "a\u202eb\x00\x07\x1bc",
    "half of a pair": "\ud800",
    "nothing but a dot": ".",
    "very long": "name_" * 400,
}


@given(st.text())
def test_what_can_be_shown_is_left_and_the_rest_is_spelled(words: str) -> None:
    for make in (clean, spell_out):
        shown = make(words)
        shown.encode()  # no half of a pair is left
        assert make(shown) == shown
    if words.isascii() and words.isprintable():
        assert spell_out(words) == words


def test_characters_are_spelled_by_their_code() -> None:
    assert clean("é\n模\u202e\ud800\x00") == "é\n模[U+202E][U+D800][U+0000]"
    assert spell_out("é ж 模") == "é ж [U+6A21]"


@pytest.mark.parametrize("case", NAMES)
def test_any_name_makes_a_report(case: str, tmp_path: Path) -> None:
    name = NAMES[case]
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path)).add_results(make_experiment(), name)
    pdf = generator.generate_report()
    assert pdf.read_bytes().startswith(b"%PDF")
    assert clean(name) in pdf.with_suffix(".html").read_text(encoding="utf-8")


def test_words_in_figures_are_no_formulas_but_labels_of_axes_may_be() -> None:
    figure = create_figure(4, 3)
    axes = figure.add_subplot()
    axes.plot([1, 1000], [1, 2], label="$\\frac$")
    axes.set_xscale("log")
    axes.set_yticks([1, 2], labels=["$x_$", "$"])
    axes.set_title("$\\nothing$ 模")
    axes.legend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            picture = render_figure(figure, "a.svg").decode()
            assert "<!-- $\\nothing$ [U+6A21] -->" in picture
            assert "<!-- $x_$ -->" in picture
            assert "<!-- $\\frac$ -->" in picture
            assert "mathdefault{10^" in picture  # drawn as a formula: 10 to a power


def test_long_names_are_told_apart_by_what_stands_in_their_middle() -> None:
    layers = [f"model.layers.{number}.self_attn.{part}_proj.weight" for number in range(12) for part in "qkvo"]
    shown = tell_apart(layers)
    assert shown[:2] == ["layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj"]
    files = [f"/srv/experiments/{name}/mask.safetensors" for name in ("first", "second")]
    assert tell_apart(files) == ["first", "second"]
    assert len(set(shown)) == len(set(tell_apart(layers, 22))) == len(layers)
    assert tell_apart(["a" * 50]) == [show_words("a" * 50)]
    assert tell_apart(["x." * 30 + "y", "y"]) == [show_words("x." * 30 + "y"), "y"]
    assert tell_apart([]) == []

"""Every kind of results is told, checked and described; what is not whole is refused in words, never by a traceback."""

import copy
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statistical_report_generator import ReportConfig, StatisticalReportGenerator, plot_results
from statistical_report_generator.document import Figure, Table
from statistical_report_generator.kinds import KINDS, list_schemas, recognise
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions
from tests.statistical_report_generator import every_kind
from tests.statistical_report_generator.every_kind import change, describe, list_places, make_result, tell
from tests.statistical_report_generator.summaries import make_results

NAMES = tuple(every_kind.KINDS)
DOCS = Path(__file__).parents[2] / "docs" / "schemas"
ATTACKS = 40
WITHOUT_FIGURES = {"performance", "quality", "validation", "costs", "table"}
HOSTILE = "<script>alert(1)</script> #panic(1) \\input{/etc/passwd} ../../x $a$"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "table"])
def test_results_of_today_and_those_without_a_schema_are_told(name: str) -> None:
    assert recognise(make_result(name), "it")[0] == name
    assert recognise(every_kind.KINDS[name], "it")[0] == name


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_comes_first_then_its_figure_and_threats_come_last(name: str) -> None:
    for source in read_sources(make_result(name)):
        sections = KINDS[source.kind].describe(source, ExperimentOptions())
        assert sections[0].title == "What was found"
        assert all(section.blocks for section in sections)
        if name != "table":
            assert sections[-1].title == "Threats to validity"
            assert not sections[-1].technical
        for block in (block for section in sections for block in section.blocks):
            if isinstance(block, Figure):
                assert len(block.alternative.split()) > 5
                assert block.alternative.endswith((".", ")"))


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_made_of_every_kind(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(make_result(name)))
    pdf = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path / "out")).add_results(file).generate_report()
    assert pdf.read_bytes().startswith(b"%PDF")


def test_the_words_of_each_kind_are_those_of_the_golden_file() -> None:
    told = {name: list(tell(describe(make_result(name)))) for name in NAMES}
    golden = Path(__file__).parent / "every_kind.golden.json"
    if "UPDATE_GOLDEN" in os.environ:
        golden.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(golden.read_text(encoding="utf-8")) == told


def test_schemas_are_documented_as_they_are() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.json")} == list_schemas()


# --------------------------------------------------------------------------------------------------------- what is odd


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=ATTACKS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_wrong_value_is_shown_or_refused_in_words(name: str, data: st.DataObject) -> None:
    results: dict[str, Any] = {**every_kind.KINDS[name], "schema": make_result(name)["schema"]}
    place = data.draw(st.sampled_from([place for place in list_places(results) if place]))
    by: Any = data.draw(
        st.sampled_from([..., None, -1, 10**400, 1e308, 1e149, "", HOSTILE, [], {}, [[]], True, float("nan")])
    )
    try:
        sections = describe(change(results, place, by))
        for figure in (block for section in sections for block in section.blocks if isinstance(block, Figure)):
            figure.draw()
    except (ValueError, FileNotFoundError):
        return
    except (
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
    ) as error:  # what `StatisticalReportGenerator` puts in words
        if name == "experiment":  # histories are free in form
            return
        raise AssertionError(f"{place} as {by!r} is {error!r}") from error
    assert sections


@pytest.mark.parametrize(
    ("name", "place", "by", "match"),
    [
        (
            "robustness",
            ("sparsity_curves", "magnitude", 0, "sparsity"),
            1.5,
            r"sparsity must be less than or equal to 1",
        ),
        (
            "robustness",
            ("sparsity_curves", "magnitude", 0, "accuracy"),
            "high",
            "accuracy must be a valid number, got 'high'",
        ),
        (
            "connectivity",
            ("rows", 0, "instability", "low"),
            0.9,
            r"rows\[0\].instability: the mean must lie in its interval",
        ),
        ("connectivity", ("rows", 0, "accuracy", "high"), None, "must have both of its ends or none, got one"),
        ("landscape", ("losses",), [[1.0]], "losses must have 2 entries"),
        ("overlap-matrix", ("overlaps", 0), [1.0], "each row of overlaps must have 2 entries"),
        ("ticket", ("thresholds",), {}, "must be about the same layers"),
        ("early-bird", ("verdict",), "lovely", "verdict must be 'converged'"),
        ("lines", ("pairs",), [], "pairs List must have at least 1 item|pairs .*at least 1 item"),
        ("importance", ("importance", "report", "score"), ..., r"score must be there"),
        ("quality", ("baseline_loss",), 10**400, "must hold finite numbers, up to .*, but baseline_loss is 1000"),
        ("quality", ("schema",), "lottery-tickets quality 2", "this version knows quality up to 1; update"),
        ("quality", ("schema",), "open_lth run 3", "must be of a schema such as"),
        ("quality", ("schema",), "lottery-tickets quality 0", "versions begin with 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(name: str, place: tuple[Any, ...], by: Any, match: str) -> None:  # noqa: ANN401 - JSON
    with pytest.raises(ValueError, match=match):
        describe(change(make_result(name), place, by))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_shown_as_they_are(name: str, tmp_path: Path) -> None:
    words = json.dumps(make_result(name)).replace("fc1.weight", json.dumps(HOSTILE)[1:-1]).replace(': "dense"', ': "d"')
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path / "out", title=HOSTILE))
    page = generator.add_results(json.loads(words), HOSTILE).generate_report().with_suffix(".html").read_text()
    assert "<script>alert" not in page
    assert {path.parent for path in (tmp_path / "out").rglob("*")} <= {tmp_path / "out", tmp_path / "out/report-files"}


@pytest.mark.parametrize("name", ["ticket", "importance", "overlap", "costs"])
def test_ten_thousand_layers_are_shown_in_part_and_said(name: str) -> None:
    layers = {f"layers.{number}.weight": number / 10_000 for number in range(10_000)}
    results = copy.deepcopy(every_kind.KINDS[name])
    if name == "ticket":
        results |= {"layer_sparsities": layers, "thresholds": layers, "collapsed_layers": []}
    elif name == "importance":
        results["importance"]["scores"] = {layer: every_kind.make_summary(share) for layer, share in layers.items()}
        results["layer_sparsities"] = layers
    elif name == "costs":
        results["weights"] = dict.fromkeys(layers, every_kind.WEIGHT_COSTS["fc1.weight"])
    else:
        results["layer_overlaps"] = dict.fromkeys(layers, every_kind.OVERLAP_FIGURES)
    sections = describe(results)
    tables = [block for section in sections for block in section.blocks if isinstance(block, Table)]
    assert max(len(table.rows) for table in tables) <= 200
    assert any("of 10,000" in table.caption for table in tables)


# ------------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_FIGURES])
@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_any_result_is_drawn_into_a_file(name: str, suffix: str, tmp_path: Path) -> None:
    files = plot_results(make_result(name), tmp_path / f"figure.{suffix}")
    assert [file.name for file in files][:1] == [f"figure.{suffix}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in files)
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert all(file.read_bytes().startswith(start) for file in files)


def test_what_has_no_figure_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there must be something to be drawn"):
        plot_results(make_result("quality"), tmp_path / "figure.svg")
    with pytest.raises(ValueError, match=re.escape("must end in .pdf, .png or .svg")):
        plot_results(make_result("robustness"), tmp_path / "figure.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"quality", "validation", "table"}])
def test_labels_of_an_axis_do_not_lie_on_each_other(name: str) -> None:
    check_labels(make_result(name))


def test_labels_have_room_also_where_levels_crowd() -> None:
    check_labels(make_results({(level, "ticket"): [0.9, 0.91, 0.92] for level in range(30)}))
    rows = [{**every_kind.KINDS["connectivity"]["rows"][0], "step": step} for step in (0, *range(100, 130))]
    check_labels({**every_kind.KINDS["connectivity"], "rows": rows})


def check_labels(results: Any) -> None:  # noqa: ANN401 - JSON
    """Asserts that no two labels of an axis overlap, in any figure of the results."""
    blocks = (block for section in describe(results) for block in section.blocks)
    for figure in (block for block in blocks if isinstance(block, Figure)):
        drawing = figure.draw()
        drawing.draw_without_rendering()
        for axes in drawing.axes:
            for axis in (axes.xaxis, axes.yaxis):
                labels = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
                boxes = [label.get_window_extent() for label in labels]
                inside = [box for box in boxes if box.width > 0 and axes.bbox.padded(200).overlaps(box)]
                for first, second in itertools.pairwise(inside):
                    assert not first.overlaps(second), (figure.name, [label.get_text() for label in labels])
            assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title() or not axes.get_visible()

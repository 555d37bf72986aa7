"""A document is made ready once for all renderers."""

import dataclasses

import pytest

from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.document import Block, Document, Points, Section, Table, Text, Verdicts
from statistical_report_generator.preparing import prepare
from tests.statistical_report_generator.rendering.reports import make_experiment

ONE = Table("a-runs", "caption", ("x",), (("1",),))


def test_tables_of_results_with_names_alike_have_files_of_their_own() -> None:
    tables = [dataclasses.replace(ONE, name=name) for name in ("a", "a", "a-2", "b", "a", "a-2")]
    sections = prepare([Section("one", tables[:3]), Section("two", tables[3:])], "technical")
    names = [table.name for table in Document("title", list(sections)).list_tables()]
    assert names == ["a", "a-2", "a-2-2", "b", "a-3", "a-2-3"]
    assert len(set(names)) == len(names)


def test_a_summary_leaves_out_what_only_those_who_check_need() -> None:
    sections = [Section("found", [Text("x")]), Section("settings", [ONE], technical=True)]
    assert [s.title for s in prepare(sections, "summary")] == ["found"]
    assert [s.title for s in prepare(sections, "technical")] == ["found", "settings"]


def test_all_words_are_cleaned() -> None:
    blocks: list[Block] = [
        Text("\x01"),
        Points(("\x02",)),
        Verdicts((("winning", "\x03"),)),
        Table("n", "\x04", ("\x05",), (("\x06",),)),
    ]
    words = repr(list(prepare([Section("\x07", blocks)], "technical")))
    assert "\\x" not in words
    assert all(f"[U+000{number}]" in words for number in range(1, 8))


def test_styles_differ_in_what_they_hold_and_others_are_refused() -> None:
    documents = {}
    for style in ("technical", "summary"):
        generator = StatisticalReportGenerator(ReportConfig(style=style))
        documents[style] = generator.add_results(make_experiment(), "a").add_results(make_experiment(), "b").describe()
    titles = {style: [section.title for section in document.sections] for style, document in documents.items()}
    assert set(titles["summary"]) < set(titles["technical"])
    assert {"a: What was found", "b: Threats to validity"} <= set(titles["summary"])
    assert {"a: How it was made", "Methods"} <= set(titles["technical"]) - set(titles["summary"])
    with pytest.raises(ValueError, match=r"style must be one of \['technical', 'summary'\], got 'long'"):
        ReportConfig(style="long")  # type: ignore[arg-type] # what a caller without types may write

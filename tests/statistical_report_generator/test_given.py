"""What functions return goes into a report as it is: masks and scores like the files that are written of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lottery_tickets as lt
from statistical_report_generator import ReportConfig, StatisticalReportGenerator, plot_results
from statistical_report_generator.document import Section, Table
from statistical_report_generator.reading import read_sources
from tests.models import make_mlp
from tests.statistical_report_generator.every_kind import describe, tell

INPUTS, TARGETS = torch.randn(24, 5, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
DATA = [(INPUTS[:12], TARGETS[:12]), (INPUTS[12:], TARGETS[12:])]
SCORES: dict[str, Callable[..., Mapping[str, Tensor]]] = {
    "magnitude": lambda model, path: lt.compute_magnitude_importance(model, path=path),
    "Fisher": lambda model, path: lt.compute_fisher_importance(
        model, DATA, options=lt.ScoringOptions(standard_errors=True), path=path
    ),
    "SNIP": lambda model, path: lt.compute_snip_importance(model, DATA, path=path),
}


def make_model() -> torch.nn.Sequential:
    return make_mlp(torch.float32, (5, 8, 3))


def get_sections(results: Any, title: str) -> Section:  # noqa: ANN401 - of any kind
    [section] = [section for section in describe(results) if section.title == title]
    return section


@pytest.mark.parametrize("name", SCORES)
def test_scores_in_memory_are_those_of_their_file(name: str, tmp_path: Path) -> None:
    scores = SCORES[name](make_model(), tmp_path / "scores.json")
    [given], [read] = read_sources(scores), read_sources(tmp_path / "scores.json")
    assert given.kind == read.kind == "importance"
    assert given.results["importance"] == read.results["importance"]
    assert ("standard_errors" in given.results["importance"]) is (name == "Fisher")


def test_what_becomes_of_scores_later_changes_nothing() -> None:
    scores = lt.compute_magnitude_importance(make_model())
    generator = StatisticalReportGenerator().add_results(scores, "a")
    before = list(tell(list(generator.describe().sections)))
    for tensor in scores.values():
        tensor.zero_()
    assert list(tell(list(generator.describe().sections))) == before


def test_scores_that_are_not_finite_are_refused() -> None:
    scores = lt.compute_magnitude_importance(make_model())
    scores["0.weight"][0, 0] = torch.nan
    with pytest.raises(ValueError, match="a tensor in results must be finite"):
        StatisticalReportGenerator().add_results(scores)


def test_a_mask_says_what_it_keeps_and_how_it_was_made(tmp_path: Path) -> None:
    model = make_model()
    mask = lt.create_random_mask(model, 0.75, seed=3) & lt.Mask.from_tensors(
        {"0.weight": torch.zeros(8, 5), "2.weight": torch.ones(3, 8)}
    )
    kept = int(mask["2.weight"].sum())
    words = str(list(tell(describe(mask))))
    assert (
        f"The mask removes {100 * (1 - kept / 64):.2f} % of the weights of 2 layers; it keeps nothing of 0.weight."
        in words
    )
    assert "A mask by itself is no winning ticket until it has won against its controls." in words
    [table] = [block for block in get_sections(mask, "By layer").blocks if isinstance(block, Table)]
    assert table.headings == ("layer", "removed, %")
    assert table.rows == (("0.weight", "100.00"), ("2.weight", f"{100 * (1 - kept / 24):.2f}"))
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path)).add_results(mask, "mine")
    page = generator.generate_report().with_suffix(".html").read_text(encoding="utf-8")
    assert "largest magnitude" not in page
    assert plot_results(mask, tmp_path / "layers.svg") == [tmp_path / "layers.svg"]


def test_a_mask_tells_its_provenance_and_one_by_magnitude_its_thresholds() -> None:
    mask = lt.create_random_mask(make_model(), 0.75, seed=3)
    [settings] = [block for block in get_sections(mask, "How it was made").blocks if isinstance(block, Table)]
    assert {("settings.method", "random"), ("settings.seed", "3")} <= set(settings.rows)
    words = str(list(tell(describe(lt.compute_layerwise_magnitude_ticket(make_model(), 0.5)))))
    assert "least magnitude kept" in words
    assert "Nothing was trained: a mask by magnitude is no winning ticket" in words


def test_what_says_nothing_reports_can_tell_is_refused() -> None:
    class Other:
        def to_results(self) -> dict[str, Any]:
            return {"a": 1}

    with pytest.raises(ValueError, match=r"must hold results of one of .*, but has a"):
        StatisticalReportGenerator().add_results(Other())
    with pytest.raises(ValueError, match="layer_sparsities"):
        StatisticalReportGenerator().add_results(lt.Mask({}, {}))

"""Claims, tables and reports are about the metric that a caller has handed over, in the direction that was said."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import compute_iterative_magnitude_pruning, compute_lottery_ticket_quality
from lottery_tickets.experiments.verification import create_caller_subject, verify_run
from lottery_tickets.storage import load_results
from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.inference.intervals import choose_figures, find_own_metric, is_higher_better
from tests.models import make_mlp
from unified_model_analysis.cli import main

DATA = [(torch.arange(60.0).sin().reshape(12, 5), torch.arange(12) % 3)]


def misses(model: nn.Module, batches: Iterable[Any]) -> float:
    """Counts wrong answers."""
    with torch.no_grad():
        return float(sum((model(inputs).argmax(1) != targets).sum() for inputs, targets in batches))


def train(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            nn.functional.cross_entropy(model(inputs + torch.randn_like(inputs) / 9), targets).backward()
            optimizer.step()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    settings: dict[str, Any] = {"trainer_fn": train, "num_epochs": 2, "num_replicates": 2, "run_folder": folder}
    compute_iterative_magnitude_pruning(
        make_mlp(torch.float32), DATA, 0.2, metric=misses, higher_is_better=False, **settings
    )
    return folder


def test_claims_are_on_what_was_handed_over_and_lower_is_better(run: Path) -> None:
    results = load_results(run / "results.json")
    assert results["trainings"][0]["history"]["metric"] == {"name": "misses", "higher_is_better": False}
    claims = assess_claims(results)
    assert (claims["metric"], claims["moment"], claims["higher_is_better"]) == ("metric", "end", False)
    assert "The metric is the function misses of whoever made the run; lower is better." in claims["caveats"]
    assert assess_claims(results, metric="train_accuracy")["higher_is_better"]


def test_it_is_verified_shown_and_reported_in_its_own_units(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(run), "--moment", "end"]) == 0
    shown = capsys.readouterr().out
    assert "test accuracy" not in shown
    dense = load_results(run / "results.json")["trainings"][0]["history"]["end"]["metric"]
    assert f"{dense:.0f}" in shown
    StatisticalReportGenerator(ReportConfig(output_dir=tmp_path)).add_results(run).generate_report()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The metric is the function misses" in page
    assert "test accuracy %" not in page
    subject = create_caller_subject(
        run, make_mlp(torch.float32), DATA, trainer_fn=train, metric=misses, higher_is_better=False
    )
    assert [check for check in verify_run(run, subject) if check.problem] == []


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_retrained_ticket_is_judged_by_it(higher_is_better: bool) -> None:
    model = make_mlp(torch.float32)
    told = Recorder()
    quality = compute_lottery_ticket_quality(
        model,
        {name: torch.ones_like(weight) for name, weight in model.named_parameters() if weight.ndim > 1},
        DATA,
        metric=misses,
        higher_is_better=higher_is_better,
        trainer_fn=train,
        num_replicates=2,
        controls=["shuffled"],
        logger=told,
    )
    retrained = quality["retrained"]
    assert retrained is not None
    assert is_higher_better(retrained, choose_figures(retrained)[0]) == higher_is_better
    assert len(told.names) > 0
    assert any(name.endswith("metric") for name in told.names)


class Recorder:
    """Keeps the names of what it is told."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def log(self, values: Mapping[str, float], step: int) -> None:
        assert step >= 0
        self.names |= values.keys()


def make_rows(*metrics: object) -> dict[str, Any]:
    end = {"test_accuracy": 0.5, "metric": 3.0}
    return {"trainings": [{"branch": "ticket", "history": {"end": end, "metric": metric}} for metric in metrics]}


@pytest.mark.parametrize(
    "odd", [None, "misses", {}, {"name": 3, "higher_is_better": True}, {"name": "a", "higher_is_better": "no"}]
)
def test_trainings_of_which_some_do_not_say_so_are_compared_by_what_all_have(odd: object) -> None:
    own = {"name": "misses", "higher_is_better": False}
    assert find_own_metric(make_rows(own, own)) == ("misses", False)
    assert choose_figures(make_rows(own, own)) == ("metric", "end")
    for rows in (make_rows(own, odd), make_rows(odd, odd)):
        assert find_own_metric(rows) is None
        assert choose_figures(rows) == ("test_accuracy", "end")

"""Findings claim no more than the intervals show; the figure has the same bytes each time."""

import struct
from pathlib import Path

import pytest

from statistical_report_generator.figures import draw_accuracy_over_density, save_figure
from statistical_report_generator.findings import describe_findings, judge
from statistical_report_generator.statistics import BranchSummary, Interval, summarise_experiment
from statistical_report_generator.tables import format_percent, format_table
from tests.reporting.summaries import make_results

DENSE, GOOD = [0.980, 0.982, 0.981], [0.981, 0.983, 0.982]
WORSE, BAD = [0.960, 0.966, 0.962], [0.90, 0.92, 0.91]


def summarise(*controls: list[float], ticket: list[float] = GOOD, num_replicates: int = 3) -> list[BranchSummary]:
    names = ("reinitialised", "shuffled", "random")
    accuracies = {
        (0, "ticket"): DENSE,
        (5, "ticket"): ticket,
        **{(5, n): c for n, c in zip(names, controls, strict=False)},
    }
    return summarise_experiment(make_results({key: values[:num_replicates] for key, values in accuracies.items()}))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.003, "keeps"),
        (-0.004, 0.003, "keeps"),
        (-0.005, 0.003, "keeps"),
        (-0.004, -0.001, "keeps"),
        (-0.006, 0.003, "undecided"),
        (-0.050, 0.000, "undecided"),
        (-0.006, -0.001, "loses"),
        (-0.900, -0.800, "loses"),
        (None, None, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_interval(low: float | None, high: float | None, verdict: str) -> None:
    assert judge(Interval(0.0, low, high, 3), margin=0.005) == verdict


def test_a_winning_ticket_needs_every_control_to_be_worse() -> None:
    assert "=> Found: a ticket" in "\n".join(describe_findings(summarise(WORSE, BAD, BAD)))
    found = "\n".join(describe_findings(summarise(GOOD, BAD, BAD)))
    assert "=> Found" not in found
    assert "not clearly worse than it: reinitialised." in found


def test_a_ticket_that_loses_is_no_finding() -> None:
    found = "\n".join(describe_findings(summarise(BAD, BAD, BAD, ticket=WORSE)))
    assert "=> Found" not in found
    assert "=> Not shown: that this ticket keeps the dense accuracy." in found
    assert "the ticket falls below the dense accuracy" in found


@pytest.mark.parametrize("num_replicates", [1, 2, 3])
@pytest.mark.parametrize("ticket", [GOOD, DENSE, WORSE])
def test_without_controls_nothing_wins(ticket: list[float], num_replicates: int) -> None:
    found = "\n".join(describe_findings(summarise(ticket=ticket, num_replicates=num_replicates)))
    assert "=> Found" not in found
    assert "No controls were trained, so nothing can be said about winning tickets." in found


def test_one_replicate_shows_nothing() -> None:
    found = "\n".join(describe_findings(summarise(BAD, BAD, BAD, num_replicates=1)))
    assert "=> Found" not in found
    assert found.count("is undecided") == 4
    assert "replicates: 1;" in found


def test_a_kept_accuracy_that_is_lower_is_called_so() -> None:
    slightly_lower = [accuracy - loss for accuracy, loss in zip(DENSE, (0.002, 0.0021, 0.0019), strict=True)]
    found = "\n".join(describe_findings(summarise(BAD, BAD, BAD, ticket=slightly_lower)))
    assert "the ticket keeps the dense accuracy within the margin, though it is measurably lower" in found
    assert "measurably lower" not in "\n".join(describe_findings(summarise(BAD, BAD, BAD)))


def test_findings_state_their_margin() -> None:
    summaries = summarise(BAD)
    assert "the margin is 0.5 points" in describe_findings(summaries)[-1]
    assert "the margin is 2.0 points" in describe_findings(summaries, margin=0.02)[-1]


def test_percent() -> None:
    assert format_percent(Interval(0.98314, 0.98021, 0.98604, 3)) == "98.31 [98.02, 98.60]"
    assert format_percent(Interval(-0.01, -0.02, 0.0, 3), sign=True) == "-1.00 [-2.00, +0.00]"
    assert format_percent(Interval(0.5, None, None, 1)) == "50.00"


def test_tables_have_a_row_for_each_branch() -> None:
    summaries = summarise(WORSE, BAD)
    lines = format_table(summaries).splitlines()
    assert len(lines) == 2 + len(summaries)
    assert "dense" in lines[2]
    assert [line.split()[2] for line in lines[3:]] == ["ticket", "reinitialised", "shuffled"]


@pytest.mark.parametrize("num_replicates", [1, 3])
def test_a_figure_is_written_and_is_the_same_twice(tmp_path: Path, num_replicates: int) -> None:
    for name in ("a.png", "b.png"):
        save_figure(
            draw_accuracy_over_density(summarise(WORSE, BAD, num_replicates=num_replicates), "title"), tmp_path / name
        )
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (8 * 150, round(4.8 * 150)), "150 dots an inch"
    assert b"Software" not in content
    assert b"Date" not in content

"""Findings say what the claims are, no more, with their figures; the figure has the same bytes each time."""

import struct
from pathlib import Path
from typing import Any

import pytest

from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.claims.findings import describe_claims, describe_more_runs
from statistical_report_generator.figures.experiment import draw_accuracy_over_density
from statistical_report_generator.figures.style import save_figure
from statistical_report_generator.inference.intervals import BranchSummary, summarise_experiment
from statistical_report_generator.tables import format_table
from tests.statistical_report_generator.summaries import make_results

DENSE, GOOD = [0.980, 0.982, 0.981, 0.979], [0.9811, 0.9829, 0.9822, 0.9798]
WORSE, BAD = [0.960, 0.966, 0.962, 0.961], [0.90, 0.92, 0.91, 0.90]


def make(*controls: list[float], ticket: list[float] = GOOD, num_replicates: int = 4) -> dict[str, Any]:
    names = ("reinitialised", "shuffled", "random")
    accuracies = {
        (0, "ticket"): DENSE,
        (5, "ticket"): ticket,
        **{(5, n): c for n, c in zip(names, controls, strict=False)},
    }
    return make_results({key: values[:num_replicates] for key, values in accuracies.items()})


def summarise(*controls: list[float], num_replicates: int = 4) -> list[BranchSummary]:
    return summarise_experiment(make(*controls, num_replicates=num_replicates))


def describe(
    *controls: list[float],
    ticket: list[float] = GOOD,
    num_replicates: int = 4,
    **options: Any,  # noqa: ANN401 - any option
) -> str:
    results = make(*controls, ticket=ticket, num_replicates=num_replicates)
    return "\n".join(describe_claims(assess_claims(results, **{"margin": 0.005, **options})))


def test_a_winning_ticket_needs_every_control_to_be_worse() -> None:
    found = describe(WORSE, BAD, BAD)
    assert "At 32.8 % of the weights: matching, less than 0.5 points worse than dense (p < 0.001)" in found
    assert "=> Found: a winning ticket; it is matching and better than each of reinitialised, shuffled, random" in found
    found = describe([0.9780, 0.9829, 0.9860, 0.9790], BAD, BAD)
    assert "=> Found" not in found
    assert "=> Not shown to be a winning ticket: not shown to be worse than it: reinitialised." in found
    found = describe([value + 0.0001 for value in GOOD[:3]] + [GOOD[3]], BAD, BAD)
    assert "=> Not a winning ticket: as good as it within the margin: reinitialised." in found


def test_a_ticket_that_loses_is_no_finding() -> None:
    found = describe(BAD, BAD, BAD, ticket=WORSE)
    assert "=> Found" not in found
    assert "not matching, more than 0.5 points worse than dense (p < 0.001)" in found
    assert "=> Not a winning ticket: it is not matching." in found


@pytest.mark.parametrize("num_replicates", [1, 2, 4])
@pytest.mark.parametrize("ticket", [GOOD, DENSE, WORSE])
def test_without_controls_nothing_wins(ticket: list[float], num_replicates: int) -> None:
    found = describe(ticket=ticket, num_replicates=num_replicates)
    assert "=>" not in found
    assert "winning ticket;" not in found
    assert "No controls were trained, so nothing can be said about winning tickets." in found


def test_controls_that_are_missing_are_named() -> None:
    found = describe(BAD)
    assert "=> Of winning nothing can be said without all controls; not trained here: shuffled, random." in found
    assert "winning ticket" not in found


def test_one_replicate_shows_nothing() -> None:
    found = describe(BAD, BAD, BAD, num_replicates=1)
    assert "=> Found" not in found
    assert "undecided, at least 1 more run needed; minus dense +0.11 points." in found
    assert found.count("is not shown to be worse than the ticket") == 3
    assert "Replicates: 1;" in found


def test_what_is_better_or_worse_is_called_so() -> None:
    slightly_worse = [accuracy - loss for accuracy, loss in zip(DENSE, (0.002, 0.0021, 0.0019, 0.002), strict=True)]
    assert "matching, less than 0.5 points worse than dense (p < 0.001), though measurably worse" in describe(
        ticket=slightly_worse
    )
    better = [2 * dense - worse for dense, worse in zip(DENSE, slightly_worse, strict=True)]
    assert "than dense (p < 0.001), and measurably better" in describe(ticket=better)
    assert "than dense (p < 0.001), equivalent: nor that much better" in describe(
        ticket=[0.9811, 0.9812, 0.9815, 0.9785]
    )


def test_copies_and_missing_partners_are_told() -> None:
    assert "the same difference in all replicates (sign test; are they copies?)" in describe(ticket=DENSE)
    results = make()
    results["trainings"] = [row for row in results["trainings"] if (row["level"], row["replicate"]) != (5, 3)]
    assert "3 pairs, 1 replicate without a partner" in "\n".join(describe_claims(assess_claims(results)))


def test_findings_state_their_limits() -> None:
    found = describe(BAD, num_looks=3)
    assert "Over 1 level and 3 planned looks together" in found
    assert "a chance of at most 5 % each" in found
    assert "p corrected by Holm's method, the margin is 0.5 points." in found
    assert "the margin is 2 points" in describe(BAD, margin=0.02)
    assert "the margin is 1 point." in describe(BAD, margin=0.01)
    assert "Replicates: 4;" in found
    assert "one look at these results" in describe(BAD)


def test_other_metrics_keep_their_units() -> None:
    results = make_results({(0, "ticket"): DENSE, (5, "ticket"): GOOD})
    for row in results["trainings"]:
        row["history"]["end"]["loss"] = row["history"]["early_stop"]["test_accuracy"]
    claims = assess_claims(results, metric="loss", moment="end", margin=0.005, higher_is_better=False)
    found = "\n".join(describe_claims(claims))
    assert "less than 0.005 worse than dense" in found
    assert "minus dense +0.001 [" in found
    assert "lower is better" in found
    assert "point" not in found


def test_no_pruned_level_is_no_ticket() -> None:
    results = make_results({(0, "ticket"): DENSE})
    assert describe_claims(assess_claims(results)) == [
        "No level was pruned, so there is no ticket to claim anything of."
    ]


def test_more_runs_in_words() -> None:
    assert describe_more_runs({"num": 1, "bound": ""}) == "1 more run needed"
    assert describe_more_runs({"num": 12, "bound": ""}) == "12 more runs needed"
    assert describe_more_runs({"num": 1000, "bound": "more than"}) == "more than 1000 more runs needed"
    assert describe_more_runs(None) == "no more runs needed"


def test_tables_have_a_row_for_each_branch() -> None:
    summaries = summarise(WORSE, BAD)
    lines = format_table(summaries).splitlines()
    assert len(lines) == 2 + len(summaries)
    assert "dense" in lines[2]
    assert [line.split()[2] for line in lines[3:]] == ["ticket", "reinitialised", "shuffled"]


@pytest.mark.parametrize("num_replicates", [1, 4])
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

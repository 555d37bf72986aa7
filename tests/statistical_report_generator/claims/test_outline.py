"""Claims in short say the same as claims in words."""

import pytest

from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.claims.findings import describe_claims
from statistical_report_generator.claims.outline import answer_claims, list_remarks, list_verdicts
from statistical_report_generator.inference.intervals import summarise_experiment
from statistical_report_generator.tables import format_table
from tests.statistical_report_generator.claims.made_up import DENSE, move, with_controls
from tests.statistical_report_generator.summaries import make_results

RESULTS = make_results(
    {
        (0, "ticket"): DENSE,
        (1, "ticket"): move(-0.02),
        **with_controls(2, move(0.001), move(-0.02), move(-0.03), move(0.001)),
        **with_controls(3, move(0.001), move(-0.02), move(-0.03), move(-0.04)),
    }
)


def test_the_answer_names_what_wins_and_the_sparsest_that_matches() -> None:
    assert answer_claims(assess_claims(RESULTS)) == (
        "Winning tickets were found at 51.2 % of the weights. "
        "The sparsest that matches the dense network has 51.2 % of the weights."
    )
    losing = make_results({(0, "ticket"): DENSE, (1, "ticket"): move(-0.02)})
    assert answer_claims(assess_claims(losing)) == (
        "No ticket is shown to win. None is shown to match the dense network."
    )


def test_each_row_has_the_verdict_of_its_claim() -> None:
    verdicts = list_verdicts(assess_claims(RESULTS))
    assert {key: words for key, (words, _) in verdicts.items()} == {
        (1, "ticket"): "not matching",
        (2, "ticket"): "matching, not winning"
        if verdicts[2, "random"][0].startswith("as")
        else verdicts[2, "ticket"][0],
        (2, "reinitialised"): "worse than the ticket",
        (2, "shuffled"): "worse than the ticket",
        (2, "random"): "not shown to be worse",
        (3, "ticket"): "winning",
        (3, "reinitialised"): "worse than the ticket",
        (3, "shuffled"): "worse than the ticket",
        (3, "random"): "worse than the ticket",
    }
    assert all(p.startswith("p ") for _, p in verdicts.values())


def test_the_table_has_the_verdict_as_a_column_and_fits_100_columns() -> None:
    claims = assess_claims(RESULTS)
    lines = format_table(summarise_experiment(RESULTS), list_verdicts(claims)).splitlines()
    assert lines[0].rstrip().endswith("verdict")
    assert max(map(len, lines)) <= 100
    for summary, line in zip(summarise_experiment(RESULTS), lines[2:], strict=True):
        words = list_verdicts(claims).get((summary.level, summary.branch), ("", ""))
        assert line.endswith(words[1])
        assert words[0] in line


def test_no_sentence_is_said_twice_and_limits_are_those_of_the_claims() -> None:
    claims = assess_claims(RESULTS)
    remarks = list_remarks(claims)
    assert len(set(remarks)) == len(remarks)
    assert remarks == [sentence for sentence in describe_claims(claims) if sentence in remarks]


def test_undecided_levels_say_how_many_runs_are_missing() -> None:
    noisy = make_results({(0, "ticket"): DENSE[:3], (1, "ticket"): [0.9, 0.98, 0.99]})
    claims = assess_claims(noisy)
    assert list_verdicts(claims)[1, "ticket"][0] == "undecided"
    assert list_remarks(claims)[0].startswith("Undecided: 80.0 % ")
    assert "needed" in list_remarks(claims)[0]


def test_a_replicate_that_stands_apart_is_told() -> None:
    apart = make_results(
        {(0, "ticket"): [0.98] * 8, (1, "ticket"): [0.98, 0.981, 0.979, 0.98, 0.981, 0.979, 0.98, 0.7]}
    )
    assert any("stands apart" in remark for remark in list_remarks(assess_claims(apart)))


@pytest.mark.parametrize("test", ["t", "sign"])
def test_every_level_has_a_verdict(test: str) -> None:
    claims = assess_claims(RESULTS, test=test)  # type: ignore[arg-type] # one of the two
    assert {level["level"] for level in claims["levels"]} == {level for level, _ in list_verdicts(claims)}

"""Claims on made-up results: what is decided, what is refused, and what may change without changing a verdict."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from statistical_report_generator.claims.assessment import assess_claims, check_settings
from statistical_report_generator.claims.findings import describe_claims
from statistical_report_generator.claims.types import Claims
from statistical_report_generator.inference.equivalence import summarise_differences
from statistical_report_generator.inference.verdicts import compare_with_controls, compare_with_dense
from tests.statistical_report_generator.claims.made_up import (
    DENSE,
    JITTER,
    NAMES,
    Accuracies,
    assess,
    assess_one,
    move,
    with_controls,
)
from tests.statistical_report_generator.summaries import make_results

# ------------------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("distance", "verdict", "equivalent", "better", "worse"),
    [
        (0.0100, "matching", False, True, False),
        (0.0010, "matching", True, True, False),
        (0.0000, "matching", True, False, False),
        (-0.0010, "matching", True, False, True),
        (-0.0020, "undecided", False, False, True),
        (-0.0030, "not matching", False, False, True),
    ],
)
def test_the_verdict_is_about_not_being_worse(
    distance: float, verdict: str, equivalent: bool, better: bool, worse: bool
) -> None:
    level = assess_one(move(distance))
    found = (level["verdict"], level["is_equivalent"], level["is_better"], level["is_worse"])
    assert found == (verdict, equivalent, better, worse)


def test_figures_are_those_of_scipy() -> None:
    ticket = move(-0.0005)
    level = assess_one(ticket)
    differences = np.array(ticket) - np.array(DENSE)
    shown = level["ticket_minus_dense"]
    assert shown["mean"] == pytest.approx(differences.mean())
    assert shown["std"] == pytest.approx(differences.std(ddof=1))
    interval = stats.t.interval(0.95, 5, differences.mean(), stats.sem(differences))
    assert (shown["low"], shown["high"]) == pytest.approx(interval)
    for name, bound, alternative in (
        ("not_worse", -0.002, "greater"),
        ("not_better", 0.002, "less"),
        ("worse", -0.002, "less"),
        ("above", 0.0, "greater"),
        ("below", 0.0, "less"),
    ):
        expected = stats.ttest_1samp(differences, bound, alternative=alternative).pvalue
        p_values = level[name]  # type: ignore[literal-required] # one of its keys
        assert p_values == {"p_value": pytest.approx(expected), "adjusted_p_value": pytest.approx(expected)}


def test_levels_are_corrected_by_holm() -> None:
    claims = assess({(level, "ticket"): move(-0.0016, JITTER[level:] + JITTER[:level]) for level in (1, 2, 3)})
    raw = sorted(level["not_worse"]["p_value"] for level in claims["levels"])
    adjusted = sorted(level["not_worse"]["adjusted_p_value"] for level in claims["levels"])
    assert adjusted == pytest.approx([3 * raw[0], max(3 * raw[0], 2 * raw[1]), max(3 * raw[0], 2 * raw[1], raw[2])])
    alone = assess_one(move(-0.00177))
    assert alone["verdict"] == "matching", "alone it would be"
    among = assess({(level, "ticket"): move(-0.00177) for level in range(1, 11)})
    assert {level["verdict"] for level in among["levels"]} == {"undecided"}


def test_looks_divide_alpha() -> None:
    claims = assess({(1, "ticket"): move(-0.00177)}, num_looks=10)
    assert claims["alpha_per_look"] == pytest.approx(0.005)
    assert claims["levels"][0]["verdict"] == "undecided"
    assert assess({(1, "ticket"): move(-0.00177)})["levels"][0]["verdict"] == "matching"


def test_without_levels_nothing_is_claimed() -> None:
    assert assess({})["levels"] == []


# ------------------------------------------------------------------------------------------------------------- how many


def test_undecided_levels_say_how_many_more_runs() -> None:
    wide = [20 * noise for noise in JITTER]
    level = assess_one(move(0.0, wide))
    assert level["verdict"] == "undecided"
    num = 6 + level["more_runs"]["num"] if level["more_runs"] else 0
    std = float(np.std(wide, ddof=1))
    power = [stats.nct.sf(stats.t.isf(0.05, n - 1), n - 1, 0.002 / std * math.sqrt(n)) for n in (num - 1, num)]
    assert power[0] < 0.8 <= power[1]
    assert assess_one(move(0.0))["more_runs"] is None


def test_more_levels_and_looks_need_more_runs() -> None:
    wide = move(0.0, [20 * noise for noise in JITTER])

    def count(num_levels: int, **options: Any) -> int:  # noqa: ANN401 - any option
        more_runs = assess({(level + 1, "ticket"): wide for level in range(num_levels)}, **options)["levels"][0]
        return more_runs["more_runs"]["num"] if more_runs["more_runs"] else 0

    assert 0 < count(1) < count(5) < count(15) < count(15, num_looks=5)


def test_on_the_margin_no_number_is_enough() -> None:
    assert assess_one(move(-0.002))["more_runs"] == {"num": 1000, "bound": "more than"}


@pytest.mark.parametrize("num", [1, 2])
def test_few_replicates_are_undecided(num: int) -> None:
    accuracies = {(0, "ticket"): DENSE[:num], **with_controls(1, move(0.0)[:num], *[move(-0.1)[:num]] * 3)}
    (level,) = assess(accuracies)["levels"]
    if num == 1:
        assert level["verdict"] == "undecided"
        assert level["more_runs"] == {"num": 1, "bound": "at least"}
        assert level["ticket_minus_dense"]["std"] is None
        assert level["not_worse"] == {"p_value": 1, "adjusted_p_value": 1}
        assert level["winning"] == "not shown"
    else:
        assert level["not_worse"]["p_value"] < 1


def test_equal_differences_are_decided_by_their_number() -> None:
    """Three copies of one run are no evidence: n equal differences give 0.5**n."""
    for num, verdict in ((3, "undecided"), (4, "undecided"), (5, "matching"), (6, "matching")):
        accuracies = {(0, "ticket"): DENSE[:num], (1, "ticket"): DENSE[:num]}
        (level,) = assess(accuracies)["levels"]
        assert level["verdict"] == verdict
        assert level["not_worse"]["p_value"] == pytest.approx(0.5**num)
        assert level["ticket_minus_dense"]["test"] == "sign"
        assert level["more_runs"] == (None if verdict == "matching" else {"num": 5 - num, "bound": ""})
    assert assess_one([value - 0.01 for value in DENSE])["verdict"] == "not matching"
    on_margin = assess_one([value - 0.002 for value in DENSE])
    assert on_margin["verdict"] == "undecided"
    assert on_margin["more_runs"] == {"num": 1000, "bound": "more than"}


# ----------------------------------------------------------------------------------------------------------------- laws


NOISE = st.lists(st.floats(-0.02, 0.02), min_size=5, max_size=5)

FIVE = st.lists(st.tuples(NOISE, NOISE, NOISE), min_size=1, max_size=4)


def make_accuracies(levels: Sequence[Sequence[Sequence[float]]]) -> dict[tuple[int, str], list[float]]:
    """Returns accuracies of tickets and two controls; rounded, so that differences are exact or far from rounding."""
    accuracies = {(0, "ticket"): DENSE[:5]}
    for number, branches in enumerate(levels, start=1):
        for name, noise in zip(("ticket", "reinitialised", "shuffled"), branches, strict=True):
            values = [round(dense + value, 6) for dense, value in zip(DENSE[:5], noise, strict=True)]
            accuracies[number, name] = values
    return accuracies


def list_verdicts(claims: Claims) -> list[tuple[object, ...]]:
    return [
        (level["verdict"], level["winning"], level["is_better"], *(c["verdict"] for c in level["controls"]))
        for level in claims["levels"]
    ]


def assess_two(accuracies: Accuracies, **options: Any) -> Claims:  # noqa: ANN401 - any option
    return assess(accuracies, controls=["reinitialised", "shuffled"], **options)


@settings(max_examples=40, deadline=None)
@given(FIVE, st.sampled_from([-0.5, 0.25, 8.0]), st.permutations(range(5)))
def test_neither_a_constant_nor_the_order_of_replicates_matters(
    levels: list[tuple[list[float], ...]], constant: float, order: list[int]
) -> None:
    accuracies = make_accuracies(levels)
    verdicts = list_verdicts(assess_two(accuracies))
    moved = {key: [value + constant for value in values] for key, values in accuracies.items()}
    assert list_verdicts(assess_two(moved)) == verdicts
    mixed = {key: [values[place] for place in order] for key, values in accuracies.items()}
    assert list_verdicts(assess_two(mixed)) == verdicts


@settings(max_examples=40, deadline=None)
@given(FIVE)
def test_a_larger_margin_never_unmakes_a_match(levels: list[tuple[list[float], ...]]) -> None:
    accuracies = make_accuracies(levels)
    ranks = {"not matching": 0, "undecided": 1, "matching": 2}
    found = [
        [ranks[level["verdict"]] for level in assess_two(accuracies, margin=margin)["levels"]]
        for margin in (0.001, 0.002, 0.01, 0.1)
    ]
    assert found == [list(row) for row in zip(*(sorted(column) for column in zip(*found, strict=True)), strict=True)]


@settings(max_examples=40, deadline=None)
@given(FIVE)
def test_a_metric_that_should_fall_is_judged_the_other_way_round(levels: list[tuple[list[float], ...]]) -> None:
    accuracies = make_accuracies(levels)
    upside_down = {key: [-value for value in values] for key, values in accuracies.items()}
    rising, falling = assess_two(accuracies), assess_two(upside_down, higher_is_better=False)
    assert list_verdicts(rising) == list_verdicts(falling)
    for one, other in zip(rising["levels"], falling["levels"], strict=True):
        assert one["not_worse"] == other["not_worse"]
        mean = one["ticket_minus_dense"]["mean"]
        assert mean is not None
        assert other["ticket_minus_dense"]["mean"] == pytest.approx(-mean), "shown as the metric is"


@settings(max_examples=40, deadline=None)
@given(FIVE)
def test_parts_of_a_verdict_agree(levels: list[tuple[list[float], ...]]) -> None:
    for level in assess_two(make_accuracies(levels))["levels"]:
        assert level["verdict"] == "matching" or not (level["is_better"] or level["is_equivalent"])
        assert level["is_worse"] or level["verdict"] != "not matching"
        assert (level["more_runs"] is None) == (level["verdict"] != "undecided")
        if level["winning"] == "winning":
            assert level["verdict"] == "matching"
            assert {control["verdict"] for control in level["controls"]} == {"beaten"}


def test_claims_are_those_of_the_vectorised_core() -> None:
    """Which the simulation in benchmarks/studies/claims_rates.py runs on many experiments at once."""
    generator = np.random.default_rng(0)
    experiments = generator.normal(0.98, 0.002, size=(30, 1 + 3 * 4, 6))
    experiments[..., 1:4, :] += 0.002  # some tickets match, some win
    dense, tickets = experiments[:, :1], experiments[:, 1:4]
    controls = dict(zip(NAMES, (experiments[:, 4:7], experiments[:, 7:10], experiments[:, 10:13]), strict=True))
    tests = compare_with_dense(summarise_differences(tickets, dense), 0.002)
    against = {name: summarise_differences(tickets, values) for name, values in controls.items()}
    wins = compare_with_controls(against, tests.not_worse.p_value, 0.002)
    seen = set()
    for number in range(30):
        accuracies = {(0, "ticket"): list(dense[number, 0])}
        for level in range(3):
            branches = {"ticket": tickets, **controls}
            accuracies.update({(level + 1, name): list(values[number, level]) for name, values in branches.items()})
        for place, level_claim in enumerate(assess(accuracies)["levels"]):
            matching = bool(tests.not_worse.holds(0.05)[number, place])
            winning = matching and bool(wins.winning.holds(0.05)[number, place])
            assert (level_claim["verdict"] == "matching", level_claim["winning"] == "winning") == (matching, winning)
            assert level_claim["winning_test"]
            assert level_claim["winning_test"]["adjusted_p_value"] == pytest.approx(
                float(wins.winning.adjusted_p_value[number, place])
            )
            seen.add((matching, winning))
    assert seen == {(False, False), (True, False), (True, True)}


# ----------------------------------------------------------------------------------------------------------- bad tails


COLLAPSED = [0.0003, -0.0002, 0.0001, -0.0300, 0.0002, -0.0001]


def test_a_replicate_that_fell_far_below_is_named_with_what_it_means() -> None:
    level = assess_one(move(0.0, COLLAPSED))
    assert level["apart"] is not None
    assert (level["apart"]["replicate"], round(level["apart"]["difference"], 4)) == (3, -0.03)
    assert assess_one(move(0.0))["apart"] is None
    said = " ".join(describe_claims(assess({(3, "ticket"): move(0.0, COLLAPSED)})))
    assert "Replicate 3 stands apart at -3.00 points (p = 0.000" in said
    assert "t tests err more often than they say, sign tests do not" in said


def test_sign_tests_make_claims_on_the_median() -> None:
    many = [0.98] * 9
    ticket = [0.981, 0.9805, 0.9802, 0.9811, 0.9799, 0.9806, 0.9808, 0.9812, 0.95]  # the mean is 0.28 points below
    results = make_results({(0, "ticket"): many, (1, "ticket"): ticket})
    by_mean, by_median = (assess_claims(results, test=test)["levels"][0] for test in ("t", "sign"))
    assert (by_mean["verdict"], by_median["verdict"]) == ("undecided", "matching")
    assert by_median["not_worse"]["p_value"] == pytest.approx(10 / 2**9)
    assert by_median["ticket_minus_dense"]["median"] == pytest.approx(0.0006)
    said = " ".join(describe_claims(assess_claims(results, test="sign")))
    assert "matching, less than 0.2 points worse than dense in more than half of all trainings (p = 0.020)" in said
    assert "median +0.06 points" in said
    assert "paired sign tests on the median" in said
    assert "are they copies" not in said


def test_winning_by_sign_tests_takes_five_replicates_at_least() -> None:
    worse = [move(-0.02), move(-0.03), move(-0.04)]
    assert assess_one(move(0.001), *worse, test="sign")["winning"] == "winning"
    four = {(level, branch): values[:4] for (level, branch), values in with_controls(1, move(0.001), *worse).items()}
    (level,) = assess_claims(make_results({(0, "ticket"): DENSE[:4], **four}), test="sign")["levels"]
    assert (level["verdict"], level["winning"]) == ("undecided", "not shown")
    assert level["more_runs"] == {"num": 1, "bound": ""}


def test_an_unknown_test_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test must be one of \['t', 'sign'\], but is 'wilcoxon'"):
        check_settings(test="wilcoxon")


# ------------------------------------------------------------------------------------------------- rows and refusals


def test_replicates_without_a_partner_are_left_out_and_counted() -> None:
    results = make_results({(0, "ticket"): DENSE, (1, "ticket"): move(0.0)})
    lacking = {**results, "trainings": [r for r in results["trainings"] if (r["level"], r["replicate"]) != (1, 2)]}
    shown = assess_claims(lacking)["levels"][0]["ticket_minus_dense"]
    assert (shown["num_replicates"], shown["num_unpaired"]) == (5, 1)
    apart = {
        "trainings": [{**row, "replicate": row["replicate"] + 10 * (row["level"] == 1)} for row in results["trainings"]]
    }
    (level,) = assess_claims(apart)["levels"]
    assert (level["ticket_minus_dense"]["mean"], level["ticket_minus_dense"]["num_unpaired"]) == (None, 12)
    assert level["verdict"] == "undecided"
    assert level["more_runs"] == {"num": 2, "bound": "at least"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, "margin must be positive, but is 0.0"),
        ({"margin": -1.0}, "margin must be positive"),
        ({"margin": math.nan}, "margin must be positive, but is nan"),
        ({"alpha": 0.0}, r"alpha must lie between 0 and 0\.5, but is 0\.0"),
        ({"alpha": 0.5}, "alpha must lie between"),
        ({"num_looks": 0}, "num_looks must be at least 1, but is 0"),
        ({"controls": ()}, "without a control no ticket wins"),
        ({"controls": "random"}, "must be different branches beside the ticket"),
        ({"controls": ("random", "random")}, "must be different branches beside the ticket"),
        ({"controls": ("ticket",)}, "must be different branches beside the ticket"),
        (
            {"metric": "perplexity"},
            r"must have 'perplexity' at one of .*, but all have {'early_stop': \['step', 'test_accuracy'\]",
        ),
        ({"moment": "start"}, r"must have one of .*'test_accuracy'.* at 'start', but all have {'early_stop': \['step'"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assess({(1, "ticket"): move(0.0)}, **options)


def test_results_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 'trainings', but have \['checkpoints'\]"):
        assess_claims({"checkpoints": []})


def test_simulations_are_refused() -> None:
    with pytest.raises(ValueError, match="a simulation trains no ticket, so it supports no claim"):
        assess_claims(make_results({(0, "ticket"): DENSE}, simulated=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.98"])
def test_figures_that_are_no_numbers_are_refused_by_their_row(value: object) -> None:
    results = make_results({(0, "ticket"): DENSE, (1, "ticket"): move(0.0)})
    results["trainings"][8]["history"]["early_stop"]["test_accuracy"] = value
    message = rf"must be a finite number in each row, but is {value!r} in that of replicate 2, level 1, branch 'ticket'"
    with pytest.raises(ValueError, match=message):
        assess_claims(results)


@pytest.mark.parametrize(
    ("accuracies", "message"),
    [
        ({(1, "ticket"): DENSE}, r"must have branch 'ticket' at level 0 \(the dense network\)"),
        ({(0, "ticket"): DENSE, (2, "random"): DENSE}, "must have branch 'ticket' at level 2, but have not"),
    ],
)
def test_results_without_a_ticket_are_refused(accuracies: Accuracies, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assess_claims(make_results(accuracies))


def test_a_training_that_stands_there_twice_is_refused() -> None:
    results = make_results({(0, "ticket"): DENSE, (1, "ticket"): move(0.0)})
    with pytest.raises(ValueError, match="that of replicate 0, level 0, branch 'ticket' stands there twice"):
        assess_claims({"trainings": [*results["trainings"], results["trainings"][0]]})

"""A ticket wins when it beats every control, and nothing else wins."""

import pytest
from scipy import stats

from tests.statistical_report_generator.claims.made_up import JITTER, NAMES, assess, assess_one, move, with_controls


@pytest.mark.parametrize(
    ("ticket", "controls", "winning", "reason"),
    [
        (0.0, (-0.01, -0.02, -0.03), "winning", "better than each of reinitialised, shuffled, random"),
        (0.0, (0.01, -0.02, -0.03), "not winning", "measurably better than it: reinitialised"),
        (0.0, (-0.01, 0.0, -0.03), "not winning", "as good as it within the margin: shuffled"),
        (-0.01, (-0.02, -0.02, -0.03), "not winning", "it is not matching"),
        (-0.002, (-0.02, -0.02, -0.03), "not shown", "whether it is matching is undecided"),
    ],
)
def test_winning(ticket: float, controls: tuple[float, ...], winning: str, reason: str) -> None:
    jitters = [JITTER[turn:] + JITTER[:turn] for turn in (1, 2, 3)]
    level = assess_one(move(ticket), *(move(c, jitter) for c, jitter in zip(controls, jitters, strict=True)))
    assert level["winning"] == winning
    assert reason in level["winning_reason"]


def test_a_control_that_may_be_as_good_leaves_it_open() -> None:
    wide = [20 * noise for noise in JITTER]
    level = assess_one(move(0.0), move(-0.001, wide), move(-0.1), move(-0.1))
    assert level["winning"] == "not shown"
    assert level["winning_reason"] == "not shown to be worse than it: reinitialised"
    assert [control["verdict"] for control in level["controls"]] == ["undecided", "beaten", "beaten"]


def test_winning_is_the_largest_p_value() -> None:
    ticket, controls = move(0.0), [move(-0.0004 * k, JITTER[k:] + JITTER[:k]) for k in (1, 2, 3)]
    level = assess_one(ticket, *controls)
    expected = [stats.ttest_rel(ticket, control, alternative="greater").pvalue for control in controls]
    assert [control["beaten"]["p_value"] for control in level["controls"]] == pytest.approx(expected)
    assert level["winning_test"]
    assert level["winning_test"]["p_value"] == pytest.approx(max(expected))
    barely = assess_one(move(-0.0016), *[move(-0.1, JITTER[::-1])] * 3)
    assert barely["winning_test"] == barely["not_worse"], "being matching is the part that is hardest to show"


@pytest.mark.parametrize("num_controls", [0, 1, 2])
def test_without_all_controls_nothing_wins(num_controls: int) -> None:
    level = assess_one(move(0.0), *[move(-0.1)] * num_controls)
    assert level["winning"] is None
    assert level["winning_test"] is None
    assert level["missing_controls"] == list(NAMES[num_controls:])
    assert level["winning_reason"].endswith(f"not trained here: {', '.join(NAMES[num_controls:])}")
    assert len(level["controls"]) == num_controls
    assert level["verdict"] == "matching", "which needs no control"


def test_required_controls_are_chosen() -> None:
    one = [move(0.0), move(-0.1)]
    assert assess_one(*one, controls=["reinitialised"])["winning"] == "winning"
    assert assess_one(*one, controls=["reinitialised", "dense restart"])["missing_controls"] == ["dense restart"]


def test_only_levels_with_controls_share_the_correction_of_winning() -> None:
    bare = {(level, "ticket"): move(0.0) for level in range(1, 10)}
    claims = assess({**bare, **with_controls(10, move(0.0), *[move(-0.001)] * 3)})
    test = claims["levels"][-1]["winning_test"]
    assert test
    assert test["p_value"] == test["adjusted_p_value"]

"""Claims in short: the answer first, a verdict for each row of a table, and what must be said beside them."""

from typing import Final

from statistical_report_generator.claims.findings import (
    describe_apart,
    describe_more_runs,
    format_p,
    state_limits,
    state_missing,
)
from statistical_report_generator.claims.types import Claims, LevelClaim
from statistical_report_generator.tables import POINTS

CONTROL_WORDS: Final = {
    "beaten": "worse than the ticket",
    "better": "better than the ticket",
    "equal": "as good as the ticket",
    "undecided": "not shown to be worse",
}


def answer_claims(claims: Claims) -> str:
    """Returns what was found, in a sentence or two.

    Args:
        claims: From `assess_claims`.
    """
    levels = claims["levels"]
    winning = [_name(level) for level in levels if level["winning"] == "winning"]
    matching = [level["density"] for level in levels if level["verdict"] == "matching"]
    answer = (
        f"Winning tickets were found at {', '.join(winning)} of the weights."
        if winning
        else "No ticket is shown to win."
    )
    if matching:
        answer += f" The sparsest that matches the dense network has {POINTS * min(matching):.1f} % of the weights."
    elif levels:
        answer += " None is shown to match the dense network."
    num_open = sum(level["verdict"] == "undecided" for level in levels)
    return answer + (f" {num_open} of {len(levels)} levels are undecided." if num_open else "")


def list_verdicts(claims: Claims) -> dict[tuple[int, str], tuple[str, str]]:
    """Returns by level and branch the verdict and its p value, as cells of a table.

    Args:
        claims: From `assess_claims`.
    """
    cells: dict[tuple[int, str], tuple[str, str]] = {}
    for level in claims["levels"]:
        cells[level["level"], "ticket"] = _judge_ticket(level)
        for control in level["controls"]:
            shown = control["beaten"] if control["verdict"] == "undecided" else control[control["verdict"]]
            cells[level["level"], control["control"]] = (CONTROL_WORDS[control["verdict"]], format_p(shown))
    return cells


def list_remarks(claims: Claims) -> list[str]:
    """Returns sentences on what a table of verdicts does not say: runs needed, runs apart, limits, caveats.

    Args:
        claims: From `assess_claims`.
    """
    open_levels = [
        f"{_name(level)} {describe_more_runs(level['more_runs'])}"
        for level in claims["levels"]
        if level["verdict"] == "undecided"
    ]
    undecided = [f"Undecided: {'; '.join(open_levels)}."] if open_levels else []
    apart = [f"At {_name(level)}:{describe_apart(level, claims)}" for level in claims["levels"] if level["apart"]]
    return [*undecided, *apart, *state_missing(claims), *state_limits(claims)]


def _judge_ticket(level: LevelClaim) -> tuple[str, str]:
    if level["winning"] == "winning" and level["winning_test"]:
        return "winning", format_p(level["winning_test"])
    if level["verdict"] == "matching":
        words = "matching, not winning" if level["winning"] == "not winning" else "matching"
        return words, format_p(level["not_worse"])
    return level["verdict"], format_p(level["worse" if level["verdict"] == "not matching" else "not_worse"])


def _name(level: LevelClaim) -> str:
    return f"{POINTS * level['density']:.1f} %"

"""What an experiment shows and what it does not, in words, each with its figures; the verdicts are of `claims`."""

from collections.abc import Mapping
from typing import Final

from statistical_report_generator.claims.types import (
    Claims,
    ControlClaim,
    LevelClaim,
    MoreRuns,
    PairedDifference,
    PValues,
)
from statistical_report_generator.tables import POINTS, format_interval

NAMES: Final = {
    "reinitialised": "the same mask with fresh weights (reinitialised)",
    "shuffled": "a shuffled mask with the original weights",
    "random": "a random mask with fresh weights",
}
OF_CHANGES: Final = {  # where all weights outside of the mask stay as they were
    "shuffled": "as many weights of each layer, at random",
    "exponents": "as many weights of each layer and exponent, at random",
    "super": "as many weights of each layer, at random but with the super weights",
}
SMALLEST_P: Final = 0.001
TESTS: Final = {"t": "paired t tests on the mean", "sign": "paired sign tests on the median"}


def describe_claims(claims: Claims) -> list[str]:
    """Returns sentences: of each level whether its ticket is matching, where it has controls whether it wins, limits.

    Args:
        claims: From `assess_claims`.
    """
    sentences: list[str] = []
    for level in claims["levels"]:
        sentences += describe_level(level, claims)
    if not claims["levels"]:
        return ["No level was pruned, so there is no ticket to claim anything of."]
    return [*sentences, *state_missing(claims), *state_limits(claims)]


def describe_level(level: LevelClaim, claims: Claims) -> list[str]:
    """Returns sentences on one level: against the dense network, against each control, and what follows.

    Args:
        level: Of the claims.
        claims: From `assess_claims`.
    """
    sentences = [f"At {POINTS * level['density']:.1f} % of the weights: {_describe_level(level, claims)}"]
    names = OF_CHANGES if _is_of_changes(level) else NAMES
    sentences += [f"  {_describe_control(control, names, claims)}" for control in level["controls"]]
    return [*sentences, f"  {_conclude(level)}"] if level["controls"] else sentences


def _describe_level(level: LevelClaim, claims: Claims) -> str:
    margin, figures = format_margin(claims["margin"], claims), format_difference(level["ticket_minus_dense"], claims)
    often = " in more than half of all trainings" if claims["test"] == "sign" else ""
    if level["verdict"] == "matching":
        words = f"matching, less than {margin} worse than dense{often} ({format_p(level['not_worse'])})"
        if level["is_better"]:
            words += ", and measurably better"
        elif level["is_worse"]:
            words += ", though measurably worse"
        elif level["is_equivalent"]:
            words += ", equivalent: nor that much better"
    elif level["verdict"] == "not matching":
        words = f"not matching, more than {margin} worse than dense{often} ({format_p(level['worse'])})"
    else:
        words = f"undecided, {describe_more_runs(level['more_runs'])}"
    pairing = _describe_pairing(level["ticket_minus_dense"], claims)
    return f"{words}; minus dense {figures}{pairing}.{describe_apart(level, claims)}"


def describe_apart(level: LevelClaim, claims: Claims) -> str:
    """Returns a sentence on the replicate that stands apart, after a space; nothing where none does."""
    apart = level["apart"]
    if apart is None:
        return ""
    words = (
        f" Replicate {apart['replicate']} stands apart at {format_value(apart['difference'], claims)} (p = "
        f"{apart['p_value']:.3f} that one normal distribution gave all): look at it"
    )
    if claims["test"] == "sign":
        return f"{words}."
    return f"{words}; where some trainings fail, t tests err more often than they say, sign tests do not."


def describe_more_runs(more_runs: MoreRuns | None) -> str:
    """Returns words such as "at least 1 more run needed"."""
    if more_runs is None:
        return "no more runs needed"
    number, bound = more_runs["num"], more_runs["bound"]
    return f"{bound} {_count(number, 'more run')} needed".strip()


def _describe_pairing(difference: PairedDifference, claims: Claims) -> str:
    words = ""
    if difference["num_unpaired"]:
        words += f", {_count(difference['num_replicates'], 'pair')}"
        words += f", {_count(difference['num_unpaired'], 'replicate')} without a partner"
    if difference["test"] == "sign" and claims["test"] == "sign" and difference["median"] is not None:
        words += f", median {format_value(difference['median'], claims)}"
    elif difference["test"] == "sign":
        words += ", the same difference in all replicates (sign test; are they copies?)"
    return words


def _describe_control(control: ControlClaim, names: Mapping[str, str], claims: Claims) -> str:
    name, figures = names.get(control["control"], control["control"]), control["ticket_minus_control"]
    words, p_values = {
        "beaten": ("is worse than the ticket", control["beaten"]),
        "better": ("is better than the ticket", control["better"]),
        "equal": ("is as good as the ticket within the margin", control["equal"]),
        "undecided": ("is not shown to be worse than the ticket", control["beaten"]),
    }[control["verdict"]]
    return (
        f"{name} {words} ({format_p(p_values)}); ticket minus it"
        f" {format_difference(figures, claims)}{_describe_pairing(figures, claims)}."
    )


def _conclude(level: LevelClaim) -> str:
    """Returns whether it is a winning ticket, or of a change mask whether its weights carry the result."""
    reason = level["winning_reason"]
    found, refuted, open_ = (
        ("these weights carry the result", "These weights are not what carries the result", "carry the result")
        if _is_of_changes(level)
        else ("a winning ticket", "Not a winning ticket", "be a winning ticket")
    )
    if level["winning"] == "winning" and level["winning_test"]:
        return f"=> Found: {found}; {reason} ({format_p(level['winning_test'])})."
    if level["winning"] == "not winning":
        return f"=> {refuted}: {reason}."
    if level["winning"] == "not shown":
        return f"=> Not shown to {open_}: {reason}."
    return f"=> Of winning {reason}."


def _is_of_changes(level: LevelClaim) -> bool:
    """Whether the weights of a mask were trained alone, others as they were: then they have controls of their own."""
    return any(control["control"] == "exponents" for control in level["controls"])


def state_missing(claims: Claims) -> list[str]:
    """Returns a sentence on levels without controls, where there are such, or on there being no level."""
    if not claims["levels"]:
        return ["Nothing was pruned, so nothing can be said about tickets."]
    num_bare = sum(not level["controls"] for level in claims["levels"])
    if num_bare == len(claims["levels"]):
        return ["No controls were trained, so nothing can be said about winning tickets."]
    if num_bare:
        return [
            f"No controls were trained at {_count(num_bare, 'level')}, so nothing is said about winning tickets there."
        ]
    return []


def state_limits(claims: Claims) -> list[str]:
    """Returns sentences on error rates and intervals, where levels were tested, and on what the run left unsure."""
    if not claims["levels"]:
        return list(claims["caveats"])
    looks, taken, num_levels = claims["num_looks"], claims["looks_taken"], len(claims["levels"])
    planned = "one look at these results" if looks == 1 else f"{looks} planned looks"
    if taken > looks:
        planned = f"the {taken} looks that were taken as replicates were added ({looks} planned)"
    pairs = sorted({level["ticket_minus_dense"]["num_replicates"] for level in claims["levels"]})
    # A dict, so that equal ends are named once.
    replicates = " to ".join(str(num) for num in dict.fromkeys((pairs[0], pairs[-1])))
    spent = POINTS * max(claims["alpha"], claims["alpha_spent"])
    errors = (
        f"Over {_count(num_levels, 'level')} and {planned} together, a false matching, not"
        f" matching or winning has a chance of at most {spent:.3g} % each: {TESTS[claims['test']]}, p corrected"
        f" by Holm's method, the margin is {format_margin(claims['margin'], claims)}."
    )
    intervals = (
        f"Replicates: {replicates}; intervals are 95 % Student t intervals of one level alone"
        f"{'' if claims['higher_is_better'] else '; lower is better'}. To add replicates and look again, plan the"
        " number of looks first."
    )
    return [errors, intervals, *claims["caveats"]]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _is_share(claims: Claims) -> bool:
    return claims["metric"].endswith("accuracy")


def format_margin(value: float, claims: Claims) -> str:
    """Returns such as "0.2 points", of the metric that claims are on."""
    if not _is_share(claims):
        return f"{value:g}"
    number = f"{POINTS * value:.6g}"
    return f"{number} {'point' if number == '1' else 'points'}"


def format_difference(difference: PairedDifference, claims: Claims) -> str:
    """Returns such as "+0.31 [+0.10, +0.52] points"."""
    scale, unit, form = (POINTS, " points", "+.2f") if _is_share(claims) else (1.0, "", "+.4g")
    if difference["mean"] is None:
        return "without a pair"
    return format_interval(difference, scale=scale, form=form) + unit


def format_value(value: float, claims: Claims) -> str:
    """Returns such as "-3.00 points", of the metric that claims are on."""
    return f"{POINTS * value:+.2f} points" if _is_share(claims) else f"{value:+.4g}"


def format_p(p_values: PValues) -> str:
    """Returns a corrected p value, such as "p = 0.012"."""
    p_value = p_values["adjusted_p_value"]
    return f"p = {p_value:.3f}" if p_value >= SMALLEST_P else f"p < {SMALLEST_P}"

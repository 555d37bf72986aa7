"""Does a ticket win: it is matching, and every control does worse. Without controls nothing is said."""

from collections.abc import Mapping, Sequence

import numpy as np

from statistical_report_generator.claims.pairs import Values, describe_pairs, read_p_values, summarise_pairs
from statistical_report_generator.claims.types import (
    Claims,
    ControlClaim,
    ControlVerdict,
    DenseClaim,
    LevelVerdict,
    PairedDifference,
    WinningClaim,
    WinningVerdict,
)
from statistical_report_generator.inference.equivalence import stack_differences
from statistical_report_generator.inference.verdicts import AgainstControls, compare_with_controls

AllValues = Mapping[tuple[int, str], Values]  # by level and branch


def claim_winning(
    values: AllValues, dense_claims: Mapping[int, DenseClaim], sign: float, settings: Claims
) -> dict[int, WinningClaim]:
    """Returns by level whether its ticket wins; the levels that have a control are one family.

    Args:
        values: The metric by level and branch, then by replicate.
        dense_claims: Of each pruned level.
        sign: 1 where higher is better, -1 where lower is.
        settings: Read are margin, alpha and the required controls.
    """
    required = settings["required_controls"]
    levels = [level for level in dense_claims if any((level, control) in values for control in required)]
    found = {level: _claim_nothing(required) for level in dense_claims}
    if not levels:
        return found
    differences = {
        control: stack_differences(
            [summarise_pairs(values[level, "ticket"], values.get((level, control), {}), sign) for level in levels]
        )
        for control in required
    }
    not_worse = np.array([dense_claims[level]["not_worse"]["p_value"] for level in levels])
    tests = compare_with_controls(differences, not_worse, settings["margin"], settings["test"])
    alpha = settings["alpha_per_look"]
    for place, level in enumerate(levels):
        missing = [control for control in required if (level, control) not in values]
        found[level] = _claim_nothing(missing)
        found[level]["controls"] = controls = [
            _claim_against_control(
                control,
                tests,
                place,
                alpha,
                difference=describe_pairs(values[level, "ticket"], values[level, control], settings["test"]),
            )
            for control in required
            if control not in missing
        ]
        if not missing:
            shown = bool(tests.winning.holds(alpha)[place])
            verdict = dense_claims[level]["verdict"]
            found[level]["winning"], found[level]["winning_reason"] = _conclude(verdict, controls, shown=shown)
            found[level]["winning_test"] = read_p_values(tests.winning, place)
    return found


def _claim_nothing(missing: Sequence[str]) -> WinningClaim:
    reason = f"nothing can be said without all controls; not trained here: {', '.join(missing)}"
    return {
        "winning": None,
        "winning_reason": reason,
        "winning_test": None,
        "missing_controls": list(missing),
        "controls": [],
    }


def _claim_against_control(
    control: str, tests: AgainstControls, place: int, alpha: float, *, difference: PairedDifference
) -> ControlClaim:
    shown: list[tuple[ControlVerdict, bool]] = [
        ("beaten", bool(tests.beaten[control].holds(alpha)[place])),
        ("better", bool(tests.better[control].holds(alpha)[place])),
        ("equal", bool(tests.equal[control].holds(alpha)[place])),
    ]
    return {
        "control": control,
        "verdict": next((verdict for verdict, holds in shown if holds), "undecided"),
        "ticket_minus_control": difference,
        "beaten": read_p_values(tests.beaten[control], place),
        "better": read_p_values(tests.better[control], place),
        "equal": read_p_values(tests.equal[control], place),
    }


def _conclude(verdict: LevelVerdict, controls: Sequence[ControlClaim], *, shown: bool) -> tuple[WinningVerdict, str]:
    """Returns the verdict on winning and its reason."""
    by_verdict = {
        name: ", ".join(claim["control"] for claim in controls if claim["verdict"] == name)
        for name in ("beaten", "better", "equal", "undecided")
    }
    if shown and verdict == "matching":
        return "winning", f"it is matching and better than each of {by_verdict['beaten']}"
    if verdict == "not matching":
        return "not winning", "it is not matching"
    against = []
    if by_verdict["better"]:
        against.append(f"measurably better than it: {by_verdict['better']}")
    if by_verdict["equal"]:
        against.append(f"as good as it within the margin: {by_verdict['equal']}")
    if against:
        return "not winning", "; ".join(against)
    open_points = []
    if verdict == "undecided":
        open_points.append("whether it is matching is undecided")
    if by_verdict["undecided"]:
        open_points.append(f"not shown to be worse than it: {by_verdict['undecided']}")
    return "not shown", "; ".join(open_points) or "each part is shown by itself, but not all together"

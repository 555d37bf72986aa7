"""What was shown of one ticket, to be kept beside it: short, JSON-able, with what it rests on."""

from typing import Any

from statistical_report_generator.claims.findings import describe_level, state_limits
from statistical_report_generator.claims.outline import CONTROL_WORDS
from statistical_report_generator.claims.types import Claims


def describe_ticket(claims: Claims, level: int, *, records_sha256: str, date: str | None = None) -> dict[str, Any]:
    """Returns the claims on one level, as a ticket's file keeps them.

    Args:
        claims: From `assess_claims`, on all levels: error rates hold for all together.
        level: Rounds of pruning.
        records_sha256: The hash of the records of the run, so that it can be told what the claims were made of.
        date: When they were made, ISO 8601; None in a file that must not depend on the day.

    Returns:
        `sentences`, the answer first, with intervals and p values; `verdict` and `winning`; `metric`, `moment`,
        `margin`, `alpha`, `test`; `difference` to the dense network with its 95 % interval and `num_replicates`;
        `controls`, a verdict each; `looks_taken` and `num_looks`; `date`, `records_sha256`.

    Raises:
        ValueError: When there is no such level.
    """
    found = [one for one in claims["levels"] if one["level"] == level]
    if not found:
        levels = [one["level"] for one in claims["levels"]]
        raise ValueError(f"the claims must be on the ticket's level, {level}, but are on {levels}; was it trained?")
    shown, difference = found[0], found[0]["ticket_minus_dense"]
    lines = [line.strip().removeprefix("=> ") for line in describe_level(shown, claims)]
    if shown["controls"]:
        lines = [lines[-1], *lines[:-1]]  # the answer first
    else:
        lines.append(f"Of winning {shown['winning_reason']}.")
    return {
        "sentences": [*lines, *state_limits(claims)],
        "verdict": shown["verdict"],
        "winning": shown["winning"],
        **{name: claims[name] for name in ("metric", "moment", "margin", "alpha", "test", "num_looks", "looks_taken")},
        "num_replicates": difference["num_replicates"],
        "difference": {name: difference[name] for name in ("mean", "low", "high")},
        "controls": {one["control"]: CONTROL_WORDS[one["verdict"]] for one in shown["controls"]},
        "missing_controls": shown["missing_controls"],
        "date": date,
        "records_sha256": records_sha256,
    }

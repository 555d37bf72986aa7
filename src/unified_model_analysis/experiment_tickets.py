"""The ticket of a run with what was shown of it: the one that `imp` leaves in its folder, and any that is asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery_tickets import Ticket
    from statistical_report_generator.claims.types import Claims


def choose_level(claims: "Claims") -> int | None:
    """Returns the level of the ticket that a run is asked for first; None where nothing was pruned.

    It is the sparsest that wins, else the sparsest that matches, else the last.

    Args:
        claims: Of all levels.
    """
    levels = claims["levels"]
    winning = [level for level in levels if level["winning"] == "winning"]
    matching = [level for level in levels if level["verdict"] == "matching"]
    return max((level["level"] for level in winning or matching or levels), default=None)


def make_run_ticket(
    run: Path,
    claims: "Claims",
    level: int | None = None,
    *,
    replicate: int = 0,
    date: str | None = None,
) -> "Ticket | None":
    """Returns a ticket of a finished run with its claims; None where nothing was pruned.

    Args:
        run: The run folder.
        claims: On its results.
        level: Which; see `choose_level` for None.
        replicate: Which repetition.
        date: Of the claims, ISO 8601; None in the run's own folder, which is the same bits on any day.
    """
    from lottery_tickets.experiments.folder import ExperimentFolder
    from lottery_tickets.experiments.results import collect_results
    from lottery_tickets.experiments.ticket import draw_ticket, hash_records
    from statistical_report_generator.claims.ticket import describe_ticket

    chosen = choose_level(claims) if level is None else level
    if chosen is None:
        return None
    folder = ExperimentFolder.read(run)
    records = hash_records(collect_results(folder))
    drawn = draw_ticket(folder, chosen, replicate=replicate)
    return drawn.with_claims(describe_ticket(claims, chosen, records_sha256=records, date=date))


def find_odd_claims(run: Path, claims: "Claims") -> str:
    """Compares the claims of the ticket in a run's folder with those on its results.

    Args:
        run: The run folder.
        claims: On its results, by the settings of its summary.
    """
    from lottery_tickets import load_ticket
    from lottery_tickets.experiments.folder import TICKET
    from unified_model_analysis.summary_checks import find_difference

    found = load_ticket(run / TICKET, weights=False)
    made = make_run_ticket(run, claims)
    if made is None or made.provenance["level"] != found.provenance.get("level"):
        return f"it is of level {found.provenance.get('level')}, but the results speak for another"
    expected: Mapping[str, Any] = json.loads(json.dumps(made.claims))
    return find_difference(found.claims, expected, "its claims")

"""Whether the summary and the figure of a run follow from its results."""

import importlib.util
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.experiment_summary import (
    FIGURE,
    NAMED,
    SUMMARY,
    draw_figure,
    has_figure,
    make_summary,
    name_drawing,
)

if TYPE_CHECKING:
    from lottery_tickets.experiments.verification import Check

TOLERANCE: Final = 1e-6  # relative: another version of scipy may round the last digits of a p-value otherwise


def check_summary(run: Path) -> "list[Check]":
    """Returns the checks of what the command line made of a run's results; none where it made nothing of them.

    Args:
        run: The run folder.
    """
    from lottery_tickets.experiments.folder import TICKET
    from lottery_tickets.experiments.verification.checks import Check, run_check

    if not (run / SUMMARY).exists() and not (run / FIGURE).exists():
        return []
    missing = [name for name in ("matplotlib", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        return [Check("they follow from the results", f"{SUMMARY}, {FIGURE}", note=f"not compared without {missing}")]
    name = "it follows from the results"
    summary = run_check(name, SUMMARY, lambda: _find_odd_summary(run))
    note = "" if summary.problem else _describe_other_drawing(run)
    figure = run_check(name, FIGURE, lambda: "" if note else _find_odd_figure(run), note)
    note = "" if summary.problem else _describe_unnamed_ticket(run)
    ticket = run_check("its claims follow from the results", TICKET, lambda: _find_odd_ticket(run), note)
    return [summary, figure, ticket]


def _find_odd_summary(run: Path) -> str:
    from lottery_tickets.storage import load_results

    found, results = load_results(run / SUMMARY), load_results(run / "results.json")
    claims = found["claims"]
    settings = {name: claims[name] for name in ("margin", "num_looks", "test")}
    made: dict[str, Any] = dict(make_summary(results, moment=found["moment"], **settings))
    if NAMED not in found:  # of an earlier version
        del made[NAMED]
    expected = {**json.loads(json.dumps(made)), "drawn_with": found["drawn_with"]}
    if not isinstance(found["drawn_with"], str):
        return f"it says it was drawn with {found['drawn_with']!r}"
    return find_difference(found, expected)


def _find_odd_ticket(run: Path) -> str:
    from lottery_tickets.experiments.folder import TICKET
    from lottery_tickets.storage import load_results
    from unified_model_analysis.experiment_tickets import find_odd_claims

    found = load_results(run / SUMMARY)
    if not (run / TICKET).exists():
        named = found.get(NAMED) is not None
        return f"{SUMMARY} names it, but there is no such file; run the same command again to write it" if named else ""
    settings = {name: found["claims"][name] for name in ("margin", "num_looks", "test")}
    made = make_summary(load_results(run / "results.json"), moment=found["moment"], **settings)
    return find_odd_claims(run, made["claims"])


def _describe_unnamed_ticket(run: Path) -> str:
    from lottery_tickets.experiments.folder import TICKET
    from lottery_tickets.storage import load_results

    if (run / TICKET).exists() or NAMED in load_results(run / SUMMARY):
        return ""
    return f"{SUMMARY} says nothing of a {TICKET}, as those of earlier versions, and none is there; imp writes one"


def _describe_other_drawing(run: Path) -> str:
    from lottery_tickets.storage import load_results

    drawn_with, here = load_results(run / SUMMARY)["drawn_with"], name_drawing()
    if drawn_with == here:
        return ""
    return f"{FIGURE} was drawn with {drawn_with} and is not compared with {here}; imp draws it anew"


def _find_odd_figure(run: Path) -> str:
    from lottery_tickets.storage import load_results

    claims = load_results(run / SUMMARY)["claims"]
    if not has_figure(claims):
        return "there is none of such results" if (run / FIGURE).exists() else ""
    with tempfile.TemporaryDirectory() as place:
        drawn = Path(place) / FIGURE
        draw_figure(load_results(run / "results.json"), claims, drawn)
        return "" if drawn.read_bytes() == (run / FIGURE).read_bytes() else "drawn again from the results it is another"


def find_difference(found: Any, expected: Any, where: str = "it") -> str:  # noqa: ANN401 - JSON values
    """Returns in words where two JSON values differ first; nothing where they are equal but for last digits.

    Args:
        found: That is there.
        expected: That should be.
        where: What it is called.
    """
    pairs: list[tuple[Any, Any, str]] = []
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        pairs = [(found[name], expected[name], f"{where}.{name}") for name in found]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = [(*both, f"{where}[{place}]") for place, both in enumerate(zip(found, expected, strict=True))]
    elif isinstance(found, float) and isinstance(expected, float):
        return "" if math.isclose(found, expected, rel_tol=TOLERANCE) else f"{where} is {found}, not {expected}"
    elif found != expected or type(found) is not type(expected):
        return f"{where} is another than the results give"
    return next(filter(None, (find_difference(*pair) for pair in pairs)), "")

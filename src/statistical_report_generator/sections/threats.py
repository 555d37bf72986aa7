"""What may be wrong with an experiment, told from its data."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from statistical_report_generator.claims.types import Claims
from statistical_report_generator.figures.learning import find_curve
from statistical_report_generator.inference.intervals import PAIRED
from statistical_report_generator.sections.layers import MISSED, list_missed
from statistical_report_generator.sections.words import MOST_NAMED, count, list_names, name_cell, percent
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS

MOST_PROBLEMS: Final = 5  # of a re-check, in a sentence
FEW: Final = 5  # replicates, below which intervals are wide and a single bad run is not seen
HALF: Final = 0.5  # of the trainings, and of the weights of one: most of them

Row = Mapping[str, Any]


def list_threats(source: Source, claims: Claims) -> list[str]:
    """Returns a sentence for each threat to the validity of an experiment; what was not looked at is one.

    Args:
        source: The experiment.
        claims: Made of it.
    """
    results, rows = source.results, _list_rows(source.results)
    threats = [
        *_count_replicates(claims),
        *_miss_controls(claims),
        *_stand_apart(claims),
        *_doubt_learning(rows),
        *_doubt_budget(rows, claims["moment"]),
        *_find_copies(rows, claims),
        *_doubt_masks(rows, results),
        *_doubt_layers(rows),
        *_doubt_movement(rows),
        *claims["caveats"],
    ]
    if claims["looks_taken"] > claims["num_looks"]:
        threats.append(
            f"Results were looked at {claims['looks_taken']} times while replicates were added, and "
            f"{claims['num_looks']} were planned: all looks together may err with a chance of "
            f"{POINTS * claims['alpha_spent']:.3g} %."
        )
    if "environments" not in results:
        threats.append("The results do not say which versions and which machine computed them.")
    threats.append("All replicates share one data set, one test set and one recipe: they vary by seed alone.")
    return [*threats, *_tell_verification(source)]


def doubt_simulation(results: Mapping[str, Any]) -> list[str]:
    """Returns what to say of a simulation: nothing was trained.

    Args:
        results: Of a simulation.
    """
    return [
        "A simulation: one pass of scores, a sweep over the schedule, and no training. A ticket is found by training.",
        *_doubt_masks(_list_rows(results), results),
        *_doubt_layers(_list_rows(results)),
    ]


def _list_rows(results: Mapping[str, Any]) -> list[Row]:
    return [row for row in results["trainings"] if row["branch"] not in PAIRED]


def _tell_verification(source: Source) -> list[str]:
    if source.verification is None:
        return ["The run was not re-checked when this report was made."]
    problems = source.verification.problems
    more = f" and {len(problems) - MOST_PROBLEMS:,} more" if len(problems) > MOST_PROBLEMS else ""
    return (
        [f"Re-checking failed, do not trust this run: {'; '.join(problems[:MOST_PROBLEMS])}{more}."] if problems else []
    )


def _doubt_learning(rows: Sequence[Row]) -> Iterator[str]:
    """Yields what the dense network's curves say of learning: a ticket of what does not learn is none."""
    name = find_curve({"trainings": rows})
    curves = [row["history"]["curve"][name] for row in rows if name and row["level"] == 0 and row["branch"] == "ticket"]
    known = [[value for value in curve if value is not None] for curve in curves]
    known = [curve for curve in known if len(curve) > 1]
    if not known:
        yield "Learning is not shown: there is no curve of the dense network to see it by."
        return
    still = sum(len(set(curve)) == 1 for curve in known)
    if still:
        yield (
            f"In {still} of {len(known)} dense runs no evaluation differs from another: nothing moved that could be "
            "seen, as when steps are smaller than the number format resolves (bfloat16), or nothing is learnt."
        )
    sign = -1.0 if str(name).endswith("loss") else 1.0
    worse = sum(sign * curve[-1] <= sign * curve[0] for curve in known) - still
    if worse:
        yield (
            f"Learning is not shown in {worse} of {len(known)} dense runs: the {str(name).replace('_', ' ')} ends no "
            "better than at the first evaluation."
        )


def _doubt_budget(rows: Sequence[Row], moment: str) -> Iterator[str]:
    """Yields whether most trainings were best where they began or where they ended: too many steps, or too few."""
    first, last = 0, 0
    for row in rows if moment == "early_stop" else ():
        steps, taken = row["history"].get("curve", {}).get("step", []), row["history"]["early_stop"].get("step")
        if len(steps) > 1:
            first += taken == steps[0]
            last += taken == steps[-1]
    if first > HALF * len(rows):
        yield (
            f"Trivial convergence: in {first} of {len(rows)} trainings the least validation loss is that of the first "
            "evaluation, so what came after taught nothing."
        )
    if last > HALF * len(rows):
        yield (
            f"In {last} of {len(rows)} trainings the validation loss was least at the last evaluation: with more steps "
            "branches may come in another order."
        )


def _find_copies(rows: Sequence[Row], claims: Claims) -> Iterator[str]:
    """Yields where tickets have the very figures of the dense network: copies, or a training that does nothing."""
    metric, moment = claims["metric"], claims["moment"]
    figures: dict[tuple[int, str], dict[int, float]] = {}
    for row in rows:
        figures.setdefault((row["level"], row["branch"]), {})[row["replicate"]] = row["history"][moment][metric]
    dense = figures.get((0, "ticket"), {})
    equal = [
        f"{POINTS * level['density']:.1f}"
        for level in claims["levels"]
        if len(dense) > 1 and figures.get((level["level"], "ticket")) == dense
    ]
    if equal:
        yield (
            f"At {', '.join(equal)} % of the weights ticket and dense network have the same figures to the last digit "
            "in every replicate: trivial convergence, copies, or a test too coarse to tell them apart."
        )


def _doubt_masks(rows: Sequence[Row], results: Mapping[str, Any]) -> list[str]:
    """Returns sentences on masks that keep nothing, on controls of another sparsity, and on a sparsity missed."""
    emptied = [f"{row['branch']} of level {row['level']}" for row in rows if not row["density"]]
    threats = [f"Layer collapse: nothing is kept by {list_names(dict.fromkeys(emptied))}."] if emptied else []
    tickets = {(row["level"], row["replicate"]): row["density"] for row in rows if row["branch"] == "ticket"}
    odd = [
        f"{row['branch']} of level {row['level']}"
        for row in rows
        if abs(row["density"] - tickets.get((row["level"], row["replicate"]), row["density"])) > MISSED
    ]
    if odd:
        threats.append(f"Not of the sparsity of their tickets: {list_names(dict.fromkeys(odd))}.")
    schedule = (results.get("plan") or {}).get("schedule")
    asked = schedule.get("target_sparsity") if isinstance(schedule, Mapping) else None
    if isinstance(asked, float) and tickets:
        threats += list_missed(asked, 1 - min(tickets.values()))
    return threats


def _doubt_layers(rows: Sequence[Row]) -> Iterator[str]:
    """Yields which layers keep nothing where the whole network keeps something, or that this was not looked at."""
    known = [row for row in rows if "layers" in row and row["density"]]
    emptied: dict[tuple[int, str, str], list[int]] = {}
    for row in known:
        for name, layer in row["layers"].items():
            if layer["num_weights"] and not layer["num_kept"]:
                emptied.setdefault((row["level"], row["branch"], name), []).append(layer["num_weights"])
    if emptied:
        nums = Counter((row["level"], row["branch"]) for row in known)
        named = [
            f"{name_cell(name)} of {branch} at level {level} keeps nothing (of {count(found[0])} weights; "
            f"{len(found)} of {nums[level, branch]} runs)"
            for (level, branch, name), found in list(emptied.items())[:MOST_NAMED]
        ]
        more = f" and {len(emptied) - MOST_NAMED:,} more" if len(emptied) > MOST_NAMED else ""
        yield f"Layer collapse: {', '.join(named)}{more}."
    missing = sum("layers" not in row for row in rows)
    yield from _tell_unknown("Layer collapse", "what each layer keeps", missing, len(rows))


def _doubt_movement(rows: Sequence[Row]) -> Iterator[str]:
    """Yields where most weights stayed as they were, or that this was not looked at.

    In float32 nearly all weights move that have a gradient; in bfloat16 most steps of plain SGD at 1e-4 are lost.
    """
    known = [row for row in rows if "share_moved" in row and row["density"]]
    still = [row for row in known if row["share_moved"] < HALF]
    if still:
        most = percent(max(row["share_moved"] for row in still), ".3g")
        found = {layer["dtype"] for row in still for layer in row.get("layers", {}).values() if "dtype" in layer}
        formats = list_names(sorted(found)) or "which was not recorded"
        yield (
            f"Stagnation: in {len(still)} of {len(known)} trainings at most {most} % of the kept weights changed at "
            f"all: steps smaller than the number format resolves ({formats}) are lost, and weights without a gradient "
            "stay."
        )
    missing = sum("share_moved" not in row for row in rows)
    yield from _tell_unknown("Stagnation (bfloat16)", "how many weights moved", missing, len(rows))


def _tell_unknown(threat: str, what: str, num_missing: int, num_rows: int) -> Iterator[str]:
    if num_missing:
        where = f"{num_missing} of {num_rows} trainings"
        yield f"{threat} was not looked at in {where}: {what} was not recorded, as by earlier versions."


def _count_replicates(claims: Claims) -> list[str]:
    nums = [level["ticket_minus_dense"]["num_replicates"] for level in claims["levels"]]
    if not nums or min(nums) >= FEW:
        return []
    words = "intervals are wide, and a kind of run that fails now and then need not be among them"
    return [f"Only {min(nums)} replicates: {words}."]


def _miss_controls(claims: Claims) -> list[str]:
    bare = [level for level in claims["levels"] if level["missing_controls"]]
    if not bare:
        return []
    missing = sorted({control for level in bare for control in level["missing_controls"]})
    densities = ", ".join(f"{POINTS * level['density']:.1f}" for level in bare)
    words = f"these controls were not trained: {', '.join(missing)}. Nothing is said about winning there."
    return [f"At {densities} % of the weights {words}"]


def _stand_apart(claims: Claims) -> list[str]:
    return [
        f"At {POINTS * level['density']:.1f} % of the weights replicate {level['apart']['replicate']} stands apart "
        f"from the others (p = {level['apart']['p_value']:.3f}): a tail that t tests do not know of."
        for level in claims["levels"]
        if level["apart"] is not None
    ]

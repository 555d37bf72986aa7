"""What may be wrong with an experiment, told from its data."""

from collections.abc import Mapping
from typing import Any, Final

from statistical_report_generator.claims.types import Claims
from statistical_report_generator.figures.learning import find_curve
from statistical_report_generator.sections.layers import list_missed
from statistical_report_generator.sources import Source
from statistical_report_generator.tables import POINTS

MOST_PROBLEMS: Final = 5  # of a re-check, in a sentence
FEW: Final = 5  # replicates, below which intervals are wide and a single bad run is not seen


def list_threats(source: Source, claims: Claims) -> list[str]:
    """Returns a sentence for each threat to the validity of an experiment; what was not looked at is one.

    Args:
        source: The experiment.
        claims: Made of it.
    """
    results = source.results
    threats = [
        *_count_replicates(claims),
        *_miss_controls(claims),
        *_stand_apart(claims),
        *_doubt_learning(results),
        *_miss_sparsity(results),
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


def _tell_verification(source: Source) -> list[str]:
    if source.verification is None:
        return ["The run was not re-checked when this report was made."]
    problems = source.verification.problems
    more = f" and {len(problems) - MOST_PROBLEMS:,} more" if len(problems) > MOST_PROBLEMS else ""
    return (
        [f"Re-checking failed, do not trust this run: {'; '.join(problems[:MOST_PROBLEMS])}{more}."] if problems else []
    )


def _doubt_learning(results: Mapping[str, Any]) -> list[str]:
    """Returns a sentence where the dense network ends no better than it was at its first evaluation."""
    name = find_curve(results)
    if name is None:
        return []
    curves = [row["history"]["curve"][name] for row in results["trainings"] if row["level"] == 0]
    ends = [(curve[0], curve[-1]) for curve in curves if curve and curve[0] is not None and curve[-1] is not None]
    if not ends:
        return []
    rise = sum(last - first for first, last in ends)
    if (rise < 0) if name.endswith("loss") else (rise > 0):
        return []
    return ["Learning is not shown: the dense network ends no better than at its first evaluation."]


def _miss_sparsity(results: Mapping[str, Any]) -> list[str]:
    """Returns a sentence where the sparsest ticket is not as sparse as was asked for."""
    schedule = (results.get("plan") or {}).get("schedule")
    asked = schedule.get("target_sparsity") if isinstance(schedule, Mapping) else None
    densities = [row["density"] for row in results["trainings"] if row["branch"] == "ticket"]
    if not isinstance(asked, float) or not densities:
        return []
    return list_missed(asked, 1 - min(densities))


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

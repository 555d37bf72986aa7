"""What may be wrong with an experiment, told from its data."""

from collections.abc import Mapping
from typing import Any, Final

from statistical_report_generator.claims.types import Claims
from statistical_report_generator.tables import POINTS

FEW: Final = 5  # replicates, below which intervals are wide and a single bad run is not seen


def list_threats(results: Mapping[str, Any], claims: Claims) -> list[str]:
    """Returns a sentence for each threat to the validity of an experiment; what was not looked at is one.

    Args:
        results: Of the experiment.
        claims: Made of them.
    """
    threats = [
        *_count_replicates(claims),
        *_miss_controls(claims),
        *_stand_apart(claims),
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
    threats += [
        "All replicates share one data set, one test set and one recipe: they vary by seed alone.",
        "The run was not re-checked when this report was made.",
    ]
    return threats


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

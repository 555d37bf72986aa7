"""Two branches paired by replicate: their differences, to be tested and to be shown."""

import statistics
from collections.abc import Mapping

from statistical_report_generator.claims.types import PairedDifference, PValues
from statistical_report_generator.inference.equivalence import FEWEST, Differences, Test, summarise_differences
from statistical_report_generator.inference.intervals import compute_differences, compute_t_interval
from statistical_report_generator.inference.verdicts import HypothesisTest

Values = Mapping[int, float]  # by replicate


def summarise_pairs(values: Values, reference: Values, sign: float) -> Differences:
    """Returns values minus reference of the replicates that have both, to be tested.

    Args:
        values: By replicate.
        reference: By replicate; may be empty.
        sign: 1 where higher is better, -1 where lower is; so that larger differences are better.
    """
    both = sorted(values.keys() & reference.keys())
    return summarise_differences([sign * values[one] for one in both], [sign * reference[one] for one in both])


def describe_pairs(values: Values, reference: Values, test: Test = "t") -> PairedDifference:
    """Returns values minus reference with its interval, to be shown.

    Args:
        values: By replicate.
        reference: By replicate.
        test: That is made of them.
    """
    differences = compute_differences(values, reference)
    interval = compute_t_interval(differences) if differences else None
    has_spread = len(differences) >= FEWEST
    spreads = has_spread and float(summarise_pairs(values, reference, 1.0).std) > 0
    return {
        "mean": interval.mean if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "median": statistics.median(differences) if differences else None,
        "std": statistics.stdev(differences) if has_spread else None,
        "num_replicates": len(differences),
        "num_unpaired": len(values.keys() ^ reference.keys()),
        "test": test if spreads else "sign" if has_spread else "none",
    }


def read_p_values(test: HypothesisTest, place: int) -> PValues:
    """Returns the p values of one level of one experiment.

    Args:
        test: Of a single experiment, so that levels are its only axis.
        place: Of the level.
    """
    return {
        "p_value": float(test.p_value[place]),
        "adjusted_p_value": float(test.adjusted_p_value[place]),
    }

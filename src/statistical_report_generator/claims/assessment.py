"""From results to claims: which tickets match the dense network, which win, how many more replicates would decide."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, get_args

from statistical_report_generator.claims.pairs import Values, describe_pairs, read_p_values, summarise_pairs
from statistical_report_generator.claims.shown import ShownClaims
from statistical_report_generator.claims.types import Apart, Claims, DenseClaim, MoreRuns
from statistical_report_generator.claims.winning import claim_winning
from statistical_report_generator.inference.equivalence import (
    FEWEST,
    Differences,
    Test,
    adjust_holm,
    compute_p_apart,
    count_replicates,
    count_replicates_by_sign,
    stack_differences,
)
from statistical_report_generator.inference.intervals import (
    OWN_METRIC,
    choose_figures,
    collect_densities,
    collect_values,
    find_own_metric,
    is_higher_better,
)
from statistical_report_generator.inference.verdicts import compare_with_dense

MARGIN: Final = 0.002  # 0.2 points: "matching" after Frankle et al. (arXiv 1912.05671)
ALPHA: Final = 0.05
CONTROLS_TO_BEAT: Final = ("reinitialised", "shuffled", "random")  # as results name their branches
FROZEN_CONTROLS: Final = ("shuffled", "exponents")  # where all weights outside of the mask stay as they are
FROZEN: Final = (
    "All weights outside of the mask stayed as they were before: the ticket is a training of the mask's weights alone, "
    "the dense network one of all weights."
)
POWER: Final = 0.8
MOST_MORE_RUNS: Final = 1000


def assess_claims(
    results: Mapping[str, Any],
    *,
    metric: str | None = None,
    moment: str | None = None,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    controls: Sequence[str] | None = None,
    num_looks: int = 1,
    higher_is_better: bool | None = None,
    test: Test = "t",
) -> Claims:
    """Returns what an experiment shows of each level's ticket, all levels together at an error of at most alpha.

    *Matching* is not being worse than the dense network by the margin or more: one side of the two one-sided tests
    (Schuirmann 1987), paired by replicate. *Not matching* needs a test of its own; between the two lies *undecided*.
    Each of these families of tests is corrected over the levels by Holm's method (Holm 1979). *Winning* is matching
    and better than every control. docs/claims.md has the measured error rates and the replicates it takes: t tests do
    not hold their level where some tickets fail badly and the dense network does not, and `test="sign"` does.

    Adding replicates after a look and looking again makes errors more frequent. Plan the number of looks and say it:
    each look then spends its share of alpha (Bonferroni), which holds however the looks are spaced. A run folder counts
    the looks that were taken, and its results carry them. Look j of more than were planned is assessed at alpha / j,
    and `alpha_spent` says by how much all looks together may err: more than alpha then.

    Args:
        results: As an experiment writes to `results.json`, or any dict whose `trainings` are rows with `replicate`,
            `level`, `branch`, `density` and `history[moment][metric]`. Level 0 of branch "ticket" is the dense network.
        metric: A figure of the history; when None, a function of the caller's, else the first of accuracy, perplexity
            and loss, on test data or else on training data, that all trainings have.
        moment: When it is taken, such as "early_stop" or "end"; when None the first of these that all trainings have.
        margin: The loss that counts as none, positive, in units of the metric; 0.002 is 0.2 points of accuracy.
        alpha: Largest chance of a false "matching" at any level, in (0, 0.5); likewise of a false "not matching" and
            of a false "winning".
        controls: What a ticket must beat to win; at least one. Other branches are ignored. When None "reinitialised",
            "shuffled" and "random"; of a change mask "shuffled" and "exponents", and "super" where it was trained.
        num_looks: How often the results are looked at in all while replicates are added, as planned before the first.
        higher_is_better: False for what is to be small; when None, that is a metric called a loss or a perplexity, and
            a function of the caller's that was said to be.
        test: "t" makes claims on the mean by t tests, for differences that are near to normal. "sign" makes them on the
            median, on what holds in more than half of all trainings, by sign tests: exact for every distribution, and
            in need of more replicates. Choose before looking.

    Returns:
        The settings and `levels`, densest first.

    Raises:
        ValueError: When the results are a simulation, lack the dense network, a ticket or the metric, hold a figure
            that is not finite or a training twice, or when a setting is out of range.
    """
    controls = _choose_controls(results) if controls is None else controls
    check_settings(margin=margin, alpha=alpha, controls=controls, num_looks=num_looks, test=test)
    if results.get("simulated"):
        raise ValueError("a simulation trains no ticket, so it supports no claim; run the experiment with training")
    metric, moment = choose_figures(results, metric, moment)
    if higher_is_better is None:
        higher_is_better = is_higher_better(results, metric)
    values = collect_values(results, moment, metric)
    kept = collect_densities(results)
    densities = {level: density for (level, branch), density in kept.items() if branch == "ticket"}
    levels = _list_levels(values)
    sign = 1.0 if higher_is_better else -1.0
    taken = max(1, len(_list_of(results, "looks", object)))
    claims: Claims = {
        "metric": metric,
        "moment": moment,
        "higher_is_better": higher_is_better,
        "margin": margin,
        "alpha": alpha,
        "test": test,
        "num_looks": num_looks,
        "looks_taken": taken,
        "caveats": [*_name_metric(results, metric), *list_caveats(results)],
        "alpha_per_look": alpha / max(num_looks, taken),
        "alpha_spent": sum(alpha / max(num_looks, look) for look in range(1, taken + 1)),
        "required_controls": list(controls),
        "levels": [],
    }
    dense_claims = _claim_against_dense(values, levels, sign, claims)
    winning_claims = claim_winning(values, dense_claims, sign, claims)
    claims["levels"] = [
        {"level": level, "density": densities[level], **dense_claims[level], **winning_claims[level]}
        for level in levels
    ]
    return cast("Claims", ShownClaims(claims))


def check_settings(
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    controls: Sequence[str] = CONTROLS_TO_BEAT,
    num_looks: int = 1,
    test: str = "t",
) -> None:
    """Raises ValueError when claims could not be assessed by these settings, for callers that train for hours first.

    Args:
        margin: As in `assess_claims`.
        alpha: As in `assess_claims`.
        controls: As in `assess_claims`.
        num_looks: As in `assess_claims`.
        test: As in `assess_claims`.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be positive, but is {margin}; no number of replicates shows a loss of exactly 0")
    if not 0 < alpha < 0.5:  # noqa: PLR2004 - a coin errs half the time
        raise ValueError(f"alpha must lie between 0 and 0.5, but is {alpha}; 0.05 is usual")
    if isinstance(controls, str) or not controls or "ticket" in controls or len(set(controls)) < len(controls):
        raise ValueError(
            f"controls must be different branches beside the ticket, at least one, but are {controls!r};"
            " without a control no ticket wins"
        )
    if num_looks < 1:
        raise ValueError(f"num_looks must be at least 1, but is {num_looks}; the look at these results is one")
    if test not in get_args(Test):
        raise ValueError(f"test must be one of {list(get_args(Test))}, but is {test!r}; 't' is usual")


def _choose_controls(results: Mapping[str, Any]) -> Sequence[str]:
    """Returns the controls that a ticket must beat when nobody says which."""
    if not _is_frozen(results):
        return CONTROLS_TO_BEAT
    return (*FROZEN_CONTROLS, *(["super"] if "super" in results["plan"].get("controls", ()) else []))


def _is_frozen(results: Mapping[str, Any]) -> bool:
    """Returns whether the results are of a change mask, so that weights outside of it are not zero."""
    plan = results.get("plan")
    return isinstance(plan, Mapping) and plan.get("others") == "frozen"


def _name_metric(results: Mapping[str, Any], metric: str) -> list[str]:
    """Returns a sentence on what a caller's function is called, where claims are on what it gives."""
    own = find_own_metric(results)
    if own is None or metric != OWN_METRIC:
        return []
    return [
        f"The metric is the function {own[0]} of whoever made the run; {'higher' if own[1] else 'lower'} is better."
    ]


def list_caveats(results: Mapping[str, Any]) -> list[str]:
    """Returns what a run folder could not make sure of, in sentences.

    Args:
        results: With `environments` and `unidentified`, as those of an experiment have them.

    Raises:
        ValueError: When they are no lists.
    """
    environments = len(_list_of(results, "environments", object))
    caveats = [FROZEN] if _is_frozen(results) else []
    caveats += [f"{said[:1].upper()}{said[1:]}." for said in _list_of(results, "unidentified", str)]
    if environments > 1:
        caveats.append(f"Trained in {environments} environments: the same command need not give the same bits again.")
    return caveats


def _list_of(results: Mapping[str, Any], name: str, kind: type) -> Sequence[Any]:
    """Returns a list of results that need not be there; raises where it is something else."""
    found = results.get(name, ())
    if not isinstance(found, list | tuple) or not all(isinstance(item, kind) for item in found):
        raise ValueError(f"{name!r} of the results must be a list, of words where it says something; was it edited?")
    return found


def _list_levels(values: Mapping[tuple[int, str], Values]) -> list[int]:
    """Returns the pruned levels, densest first."""
    for level in (0, *sorted({level for level, _ in values})):
        if (level, "ticket") not in values:
            raise ValueError(
                f"the results must have branch 'ticket' at level {level}{' (the dense network)' * (level == 0)}, but"
                " have not; controls have nothing to be compared with"
            )
    return sorted({level for level, _ in values} - {0})


def _claim_against_dense(
    values: Mapping[tuple[int, str], Values], levels: Sequence[int], sign: float, claims: Claims
) -> dict[int, DenseClaim]:
    """Returns each level's claim against the dense network; `sign` is -1 for a metric where lower is better."""
    if not levels:
        return {}
    dense = values[0, "ticket"]
    differences = [summarise_pairs(values[level, "ticket"], dense, sign) for level in levels]
    stacked, test = stack_differences(differences), claims["test"]
    tests, alpha = compare_with_dense(stacked, claims["margin"], test), claims["alpha_per_look"]
    p_apart, places_apart = compute_p_apart(stacked)
    p_apart = adjust_holm(p_apart)
    found: dict[int, DenseClaim] = {}
    for place, level in enumerate(levels):
        matching, not_matching = (bool(test.holds(alpha)[place]) for test in (tests.not_worse, tests.worse))
        undecided = not (matching or not_matching)
        found[level] = {
            "verdict": "matching" if matching else "not matching" if not_matching else "undecided",
            "is_equivalent": bool(tests.equivalent.holds(alpha)[place]),
            "is_better": bool(tests.above.holds(alpha)[place]),
            "is_worse": bool(tests.below.holds(alpha)[place]),
            "ticket_minus_dense": describe_pairs(values[level, "ticket"], dense, test),
            "apart": _name_apart(values[level, "ticket"], dense, int(places_apart[place]), float(p_apart[place])),
            "more_runs": _count_more_runs(differences[place], claims, len(levels)) if undecided else None,
            "not_worse": read_p_values(tests.not_worse, place),
            "not_better": read_p_values(tests.not_better, place),
            "equivalent": read_p_values(tests.equivalent, place),
            "worse": read_p_values(tests.worse, place),
            "above": read_p_values(tests.above, place),
            "below": read_p_values(tests.below, place),
        }
    return found


def _name_apart(values: Values, dense: Values, place: int, p_value: float) -> Apart | None:
    """Returns the replicate that stands apart, where the test says that one does."""
    if p_value > ALPHA:
        return None
    replicate = sorted(values.keys() & dense.keys())[place]
    return {"replicate": replicate, "difference": values[replicate] - dense[replicate], "p_value": p_value}


def _count_more_runs(differences: Differences, claims: Claims, num_levels: int) -> MoreRuns:
    """Returns how many further replicates decide a level at the alpha that Holm's method leaves it at worst."""
    num = int(differences.num)
    if num < FEWEST:
        return {"num": FEWEST - num, "bound": "at least"}
    alpha, most = claims["alpha_per_look"] / num_levels, num + MOST_MORE_RUNS
    if claims["test"] == "sign":
        share = float((differences.values + claims["margin"] > differences.rounding).mean())
        needed = count_replicates_by_sign(max(share, 1 - share), alpha=alpha, power=POWER, most=most)
        return _describe_more_runs(needed, num)
    needed = count_replicates(
        max(0.0, abs(float(differences.mean) + claims["margin"]) - float(differences.rounding)),
        float(differences.std),
        alpha=alpha,
        power=POWER,
        most=most,
    )
    return _describe_more_runs(needed, num)


def _describe_more_runs(needed: int | None, num: int) -> MoreRuns:
    if needed is None:
        return {"num": MOST_MORE_RUNS, "bound": "more than"}
    return {"num": max(1, needed - num), "bound": ""}

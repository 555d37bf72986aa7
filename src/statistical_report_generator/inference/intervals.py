"""Means with intervals over replicates, and differences paired by replicate."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, Final, final

from scipy import stats

CONFIDENCE: Final = 0.95
PAIRED: Final = frozenset({"shared", "copy"})  # what pairs are trained of, which tickets are not compared with
METRICS: Final = tuple(f"{split}_{name}" for name in ("accuracy", "perplexity", "loss") for split in ("test", "train"))
OWN_METRIC: Final = "metric"  # the figure that a function of the caller's gives; a history of one names it
MOMENTS: Final = ("early_stop", "end")
LARGEST: Final = 1e150  # squares and sums of larger ones overflow
MOST_LETTERS: Final = 80  # of what was got
LESS_IS_BETTER: Final = ("loss", "perplexity")  # how the names of such metrics end
Row = Mapping[str, Any]
# What a training must have; results come from files that anybody may have written.
FORM: Final[Mapping[str, tuple[type, str]]] = {
    "replicate": (Integral, "a whole number"),
    "level": (Integral, "a whole number"),
    "branch": (str, "a word"),
    "density": (Real, "a number"),
    "history": (Mapping, "an object"),
}


@final
@dataclass(frozen=True)
class Interval:
    """A mean over replicates with its confidence interval.

    Attributes:
        mean: The mean.
        low: Lower end; None with a single replicate, which has no interval.
        high: Upper end; None with a single replicate.
        num_replicates: How many values.
    """

    mean: float
    low: float | None
    high: float | None
    num_replicates: int


def read_interval(interval: Interval | Mapping[str, Any]) -> tuple[float, float | None, float | None]:
    """Returns mean, lower and upper end of an interval as it is computed or as it is saved; no ends for one replicate.

    Args:
        interval: An `Interval`, or a dict with `mean`, `low` and `high`.

    Raises:
        TypeError: When it is neither.
    """
    if isinstance(interval, Interval):
        return interval.mean, interval.low, interval.high
    if not isinstance(interval, Mapping):
        raise TypeError(f"an interval must be an Interval or its dict, got {interval!r}; use compute_t_interval")
    return interval["mean"], interval["low"], interval["high"]


def compute_t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean of independent values with its Student t interval.

    Args:
        values: One value a replicate, at least one.
        confidence: Coverage in (0, 1), two-sided.

    Raises:
        ValueError: When there is no value.

    Examples:
        >>> compute_t_interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, low=-0.484..., high=4.484..., num_replicates=3)
    """
    if not values:
        raise ValueError("an interval must be made of at least one value, but got none; are the trainings finished?")
    mean, num = statistics.fmean(values), len(values)
    if num == 1:
        return Interval(mean, None, None, 1)
    half_width = _find_quantile(confidence, num) * statistics.stdev(values) / math.sqrt(num)
    return Interval(mean, mean - half_width, mean + half_width, num)


@cache
def _find_quantile(confidence: float, num: int) -> float:
    """Returns the ends of Student's t of that many values, in standard errors; asked for with each interval."""
    return float(stats.t.ppf((1 + confidence) / 2, num - 1))


@final
@dataclass(frozen=True)
class BranchSummary:
    """The replicates of one level and branch, summed up.

    Attributes:
        level: Rounds of pruning.
        branch: "ticket" or a control.
        density: Fraction of the weights kept.
        value: The metric, an interval over replicates.
        minus_dense: The metric minus the dense network's of the same replicate.
        minus_ticket: The metric minus the ticket's of the same level and replicate.
        step: The step at which the metric was taken.
        step_over_dense: That step over the dense network's of the same replicate; below 1 learns sooner.
        step_over_ticket: That step over the ticket's of the same level and replicate.
    """

    level: int
    branch: str
    density: float
    value: Interval
    minus_dense: Interval
    minus_ticket: Interval
    step: Interval
    step_over_dense: Interval
    step_over_ticket: Interval


def summarise_experiment(
    results: Mapping[str, Any], *, metric: str = "test_accuracy", moment: str = "early_stop"
) -> list[BranchSummary]:
    """Returns one summary for each level and branch of an experiment, densest first, tickets before their controls.

    Args:
        results: What an experiment wrote to `results.json`.
        metric: A figure of the history.
        moment: "early_stop", the evaluation of least validation loss, or "end".

    Raises:
        ValueError: When the results are a simulation, or lack the metric.
    """
    if results.get("simulated"):
        raise ValueError(
            "a simulation trains no ticket, so it has nothing to summarise; run the experiment with training"
        )
    values = collect_values(results, moment, metric)
    steps = collect_values(results, moment, "step")
    densities = collect_densities(results)
    return [
        BranchSummary(
            level=level,
            branch=branch,
            density=density,
            value=compute_t_interval(list(values[level, branch].values())),
            minus_dense=compute_t_interval(compute_differences(values[level, branch], values[0, "ticket"])),
            minus_ticket=compute_t_interval(compute_differences(values[level, branch], values[level, "ticket"])),
            step=compute_t_interval(list(steps[level, branch].values())),
            step_over_dense=_compute_ratio(steps[level, branch], steps[0, "ticket"]),
            step_over_ticket=_compute_ratio(steps[level, branch], steps[level, "ticket"]),
        )
        for (level, branch), density in densities.items()
        if (level, branch) in values
    ]


def choose_figures(results: Mapping[str, Any], metric: str | None = None, moment: str | None = None) -> tuple[str, str]:
    """Returns the metric and the moment that tickets are compared by: the first of both that all trainings have.

    A function of the caller's goes before all others, accuracy before perplexity and loss, test data before training
    data, and the early stop before the end.

    Args:
        results: With `trainings`.
        metric: Taken as it is; chosen when None.
        moment: As `metric`.

    Raises:
        ValueError: When no such figure is in all trainings.

    Examples:
        >>> row = {"branch": "ticket", "history": {"end": {"train_accuracy": 0.9, "train_loss": 0.2}}}
        >>> choose_figures({"trainings": [row]})
        ('train_accuracy', 'end')
    """
    if metric is not None and moment is not None:
        return metric, moment  # who reads them says what is missing, and where
    preferred = METRICS if find_own_metric(results) is None else (OWN_METRIC, *METRICS)
    metrics, moments = preferred if metric is None else (metric,), MOMENTS if moment is None else (moment,)
    common = {when: _list_common(results, when) for when in dict.fromkeys((*MOMENTS, *moments))}
    for when in moments:
        for what in metrics:
            if what in common[when]:
                return what, when
    found = {when: sorted(common[when]) for when in MOMENTS if common[when]}
    raise ValueError(
        f"each training must have {_list_choices(metrics)} at {_list_choices(moments)}, but all have {found}"
    )


def find_own_metric(results: Mapping[str, Any]) -> tuple[str, bool] | None:
    """Returns the name of a caller's function, and whether higher is better, where all trainings have the same.

    Args:
        results: With `trainings`.
    """
    histories = [row["history"] for row in _list_rows(results, "history")]
    found = [history.get(OWN_METRIC) if isinstance(history, Mapping) else None for history in histories]
    first = found[0] if found else None
    if not isinstance(first, Mapping) or any(one != first for one in found):
        return None
    name, higher_is_better = first.get("name"), first.get("higher_is_better")
    return (name, higher_is_better) if isinstance(name, str) and isinstance(higher_is_better, bool) else None


def is_higher_better(results: Mapping[str, Any], metric: str) -> bool:
    """Returns whether more of a metric is better: of a caller's function as it says, of others by their names.

    Args:
        results: With `trainings`.
        metric: As `choose_figures` returns it.
    """
    own = find_own_metric(results)
    return own[1] if own is not None and metric == OWN_METRIC else not metric.endswith(LESS_IS_BETTER)


def _list_common(results: Mapping[str, Any], when: str) -> set[str]:
    """Returns the names of figures that all trainings have at a moment; a foreign file may hold anything there."""
    figures = [row["history"].get(when) for row in _list_rows(results, "history")]
    names = [{name for name in at if isinstance(name, str)} if isinstance(at, Mapping) else set() for at in figures]
    return set.intersection(*names) if names else set()


def collect_values(results: Mapping[str, Any], moment: str, metric: str) -> dict[tuple[int, str], dict[int, float]]:
    """Returns a figure of every training but those of pairs, by level and branch, then by replicate.

    Args:
        results: With `trainings`, rows as in `results.json`.
        moment: A key of each row's history.
        metric: A figure at this moment.

    Raises:
        ValueError: When there are no trainings, when a row lacks the metric or what says which training it is, when
            the metric is no finite number, or when a training stands there twice.
    """
    found: dict[tuple[int, str], dict[int, float]] = {}
    for row in _list_rows(results, "replicate", "level", "history"):
        figures = row["history"].get(moment, {})
        if not isinstance(figures, Mapping) or metric not in figures:
            figures = figures if isinstance(figures, Mapping) else {}
            raise ValueError(
                f"the results must have {metric!r} at {moment!r}, but have {sorted(figures)}; choose one of these"
            )
        replicate, level, branch, value = row["replicate"], row["level"], row["branch"], figures[metric]
        where = f"replicate {replicate}, level {level}, branch {branch!r}"
        if not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise ValueError(
                f"{metric!r} at {moment!r} must be a finite number in each row, but is {_show(value)} in that of "
                f"{where}; leave this replicate out of every branch, and say so"
            )
        values = found.setdefault((level, branch), {})
        if replicate in values:
            raise ValueError(f"each training must stand in the results once, but that of {where} stands there twice")
        values[replicate] = float(value)
    return found


def collect_densities(results: Mapping[str, Any]) -> dict[tuple[int, str], float]:
    """Returns the share of weights that is kept, by level and branch, of every training but those of pairs.

    Args:
        results: With `trainings`, rows as in `results.json`.

    Raises:
        ValueError: When there are no trainings, or a row lacks its density or what says which training it is.
    """
    return {(row["level"], row["branch"]): row["density"] for row in _list_rows(results, "level", "density")}


def _show(value: object) -> str:
    try:
        return repr(value)[:MOST_LETTERS]
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def _list_choices(names: Sequence[str]) -> str:
    return repr(names[0]) if len(names) == 1 else f"one of {list(names)}"


def _list_rows(results: Mapping[str, Any], *needed: str) -> list[Row]:
    """Returns the trainings that tickets are compared by; raises where one lacks what is needed of it."""
    if "trainings" not in results:
        raise ValueError(
            f"the results must have 'trainings', but have {sorted(results)}; give those of iterative magnitude pruning"
        )
    rows = results["trainings"]
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("'trainings' must be a list of objects, one a training, but is something else; was it edited?")
    for number, row in enumerate(rows):
        for name in ("branch", *needed):
            kind, words = FORM[name]
            if not isinstance(row.get(name), kind) or (isinstance(row[name], Real) and not abs(row[name]) <= LARGEST):
                got = _show(row[name]) if name in row else "missing"
                raise ValueError(f"{name!r} of trainings[{number}] must be {words}, but is {got}; was it edited?")
    return [row for row in rows if row["branch"] not in PAIRED]


def compute_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Returns values minus reference of the replicates that have both, in order of the replicates."""
    return [values[replicate] - reference[replicate] for replicate in sorted(values.keys() & reference.keys())]


def _compute_ratio(values: Mapping[int, float], reference: Mapping[int, float]) -> Interval:
    pairs = sorted(values.keys() & reference.keys())
    return compute_t_interval([values[replicate] / reference[replicate] for replicate in pairs])

"""What the history of a training must be: finite figures at the planned steps, which agree with its curve."""

import math
from collections.abc import Mapping
from typing import Any, Final

from lottery_tickets._core.reading import check_form
from lottery_tickets.experiments.plan import ExperimentPlan, Training

MOMENTS: Final = ("end", "early_stop")
CURVE: Final = "curve"
METRIC: Final = "metric"  # a function of the caller's
VALIDATION: Final = frozenset({"step", "validation_loss", "validation_accuracy"})
ROUNDING: Final = 1e-9  # relative; another machine's exp may round otherwise
TEST: Final = frozenset({"test_loss", "test_accuracy"})


def find_odd_history(history: Mapping[str, Any], training: Training, plan: ExperimentPlan) -> str:
    """Returns in words what is wrong with the history of a training; nothing when it can be.

    Args:
        history: As in its record.
        training: Which training.
        plan: The plan it is part of.
    """
    is_shared = training.branch == "shared"  # it may have no step at all
    wanted = {*MOMENTS, CURVE} if "recipe" in plan.subject and not is_shared else {"end"}
    allowed = {"end"} if is_shared else {*MOMENTS, CURVE}
    allowed |= set() if "recipe" in plan.subject else {METRIC}
    if not wanted <= set(history) <= allowed:
        return f"it has {sorted(history)}, not {sorted(wanted)}"
    if METRIC in history:
        check_form(history[METRIC], {"name": str, "higher_is_better": bool}, "the metric of its history")
    for moment in [name for name in MOMENTS if name in history]:
        if odd := _find_odd_figures(history[moment]):
            return f"{moment} has {odd}"
    if history["end"]["step"] != training.last_step(plan):
        return f"it ends after step {history['end']['step']}, planned are {training.last_step(plan)}"
    if CURVE in history:
        return _find_odd_curve(history, training, plan)
    return ""


def _find_odd_figures(figures: Mapping[str, Any]) -> str:
    if "step" not in figures or len(figures) == 1:
        return f"{sorted(figures)}, but must have its step and what was measured"
    odd = {name: value for name, value in figures.items() if not _is_possible(name, value)}
    if odd:
        return f"{odd}, which cannot be"
    for name in [name for name in figures if name.endswith("perplexity")]:
        loss = figures[name.replace("perplexity", "loss")]
        if not math.isclose(figures[name], math.exp(loss), rel_tol=ROUNDING):
            return f"a perplexity of {figures[name]}, which is not that of a loss of {loss}"
    return ""


def _is_possible(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if name.endswith("accuracy"):
        return 0 <= value <= 1
    return name != "step" or (isinstance(value, int) and value >= 0)


def _find_odd_curve(history: Mapping[str, Any], training: Training, plan: ExperimentPlan) -> str:
    curve, end = history[CURVE], history["end"]
    if not _has_known_names(set(curve), set(end), is_workload="recipe" in plan.subject):
        return f"its curve has {sorted(curve)}, its end {sorted(end)}"
    rows = [dict(zip(curve, values, strict=True)) for values in zip(*curve.values(), strict=True)]
    if odd_rows := list(filter(None, map(_find_odd_figures, rows))):
        return f"its curve has {odd_rows[0]}"
    if curve["step"] not in _list_possible_steps(training, plan):
        return f"its curve has the steps {curve['step']}, which do not follow from the plan"
    if odd := sorted(name for name in curve if curve[name][-1] != end[name]):
        return f"its curve does not end with the {odd} of its end"
    return _find_odd_early_stop(history) if "early_stop" in history else ""


def _has_known_names(curve: set[str], end: set[str], *, is_workload: bool) -> bool:
    if is_workload:
        return curve == VALIDATION and end == VALIDATION | TEST
    missing = end - curve  # a caller's perplexity or metric may be infinite at first
    return "step" in curve and curve <= end and all(name.endswith(("perplexity", "metric")) for name in missing)


def _list_possible_steps(training: Training, plan: ExperimentPlan) -> list[list[int]]:
    """Returns at which steps a training may have been measured."""
    first, last = training.first_step(plan), plan.num_steps
    if "recipe" in plan.subject:
        interval = plan.subject["recipe"]["evaluation_interval"]
        return [[step for step in range(first + 1, last + 1) if step % interval == 0 or step == last]]
    # A caller's trainer is measured after each epoch where that can be told, else after each call of it.
    parts = [(first, plan.rewind_step), (plan.rewind_step, last)] if first < plan.rewind_step else [(first, last)]
    possible: list[list[int]] = [[]]
    for begin, end in parts:
        possible = [[*steps, *more] for steps in possible for more in ([*range(begin + 1, end + 1)], [end])]
    return possible


def _find_odd_early_stop(history: Mapping[str, Any]) -> str:
    curve, early_stop, end = history[CURVE], history["early_stop"], history["end"]
    best = min(range(len(curve["step"])), key=lambda place: curve["validation_loss"][place])
    expected = {name: values[best] for name, values in curve.items()}
    if early_stop.keys() != end.keys() or any(early_stop[name] != value for name, value in expected.items()):
        return f"its early stop is {early_stop}, but the least validation loss of its curve is {expected}"
    if early_stop["step"] == end["step"] and early_stop != end:
        return "its early stop is the last step, but has other figures"
    return ""

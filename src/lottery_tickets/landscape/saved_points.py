"""Points of a landscape that a file holds, for the call that goes on from there."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from lottery_tickets._core.measuring.performance import PerformanceFigures
from lottery_tickets._core.reading import Form, check_form, list_names, make_form, show

# Two runs of a model on the same data may differ by rounding (threads, devices), on other data they differ by more.
SAME_LOSS: Final = 1e-4
FIGURES: Final[Form] = [[(float, None)]]
POINTS_FORM: Final[Form] = {
    "losses": FIGURES,
    "accuracies": FIGURES,
    "num_measured": int,
    "settings": dict,
    "centre": make_form(PerformanceFigures),
}


class Point(NamedTuple):
    """Loss and accuracy at one point; None where they are not finite."""

    loss: float | None
    accuracy: float | None


def read_points(
    found: Mapping[str, Any], path: Path, facts: Mapping[str, Any], centre: PerformanceFigures
) -> list[Point]:
    """Returns the points that a file holds, in the order in which they were measured: row by row.

    Args:
        found: What the file holds.
        path: The file.
        facts: What it must have in common with the landscape that is wanted, by key.
        centre: The figures of the centre, measured now; those in the file must be the same, or the data differs.

    Raises:
        ValueError: When the file is of something else, or of another landscape.
    """
    if not {*facts, *POINTS_FORM} <= found.keys():
        raise ValueError(f"{path} must be a loss landscape or not exist, but holds something else; take another path")
    check_form(found, POINTS_FORM, str(path))
    if odd := _list_differences(found, facts):
        raise ValueError(
            f"{path} must be a landscape of this call, but it differs in {list_names(odd)}; take another path, or the "
            "same model and arguments"
        )
    before = found["centre"]
    if before["num_predictions"] != centre["num_predictions"] or not _is_same(before["loss"], centre["loss"]):
        raise ValueError(
            f"{path} must be a landscape on the same data, but at its centre the loss is {before['loss']} over "
            f"{before['num_predictions']} predictions, and now {centre['loss']} over {centre['num_predictions']}; take "
            "another path, or the same dataloader and loss_fn"
        )
    figures = [[figure for row in found[name] for figure in row] for name in ("losses", "accuracies")]
    if {len(row) for name in ("losses", "accuracies") for row in found[name]} != {len(facts["x"])} or {
        *map(len, figures)
    } != {len(facts["x"]) * len(facts["y"])}:
        raise ValueError(
            f"{path} must hold {len(facts['y'])} rows of {len(facts['x'])} points, but has others; was it altered?"
        )
    if not 0 <= found["num_measured"] <= len(figures[0]):
        raise ValueError(
            f"{path}: num_measured must be from 0 to {len(figures[0])}, but is {show(found['num_measured'])}; was it "
            "altered?"
        )
    return [Point(*point) for point in zip(*figures, strict=True)][: found["num_measured"]]


def _list_differences(found: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Returns the names of facts that differ, of `settings` those within."""
    outer = [name for name in facts if name != "settings" and found[name] != facts[name]]
    before, now = found["settings"], facts["settings"]
    return outer + sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _is_same(before: float | None, now: float | None) -> bool:
    if before is None or now is None:
        return before is now
    return math.isclose(before, now, rel_tol=SAME_LOSS)

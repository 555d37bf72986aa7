"""How an experiment grows: the plan that a folder holds and a larger one become one, and nothing is lost."""

from collections.abc import Callable, Mapping
from typing import Any

from lottery_tickets.experiments.schedules import PruningSchedule

FindLastLevel = Callable[[PruningSchedule], int]


def grow_plan(found: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a plan that may differ, joined: more replicates, levels, controls and pairs.

    Args:
        found: The plan of the folder, as `ExperimentPlan.to_dict` gives it.
        asked: The plan asked for.

    Raises:
        ValueError: When less is asked for than is there.
    """
    for name in ("num_replicates", "num_levels"):
        if asked[name] < found[name]:
            raise ValueError(f"{name} is {found[name]} there and {asked[name]} here")
    grown = {
        "num_replicates": asked["num_replicates"],
        "num_levels": asked["num_levels"],
        "control_levels": sorted({*found["control_levels"], *asked["control_levels"]}),
        "controls": [*found["controls"], *(name for name in asked["controls"] if name not in found["controls"])],
    }
    if "copy_levels" in found and "copy_levels" in asked:  # a run without pairs has theta_k from elsewhere
        grown["copy_levels"] = sorted({*found["copy_levels"], *asked["copy_levels"]})
    return grown


def grow_to_target(
    found: Mapping[str, Any], asked: Mapping[str, Any], find_last_level: FindLastLevel
) -> dict[str, Any]:
    """Returns what `grow_plan` does for a plan whose levels end at a target, which may be sparser than before.

    The targets of before stay: a level meets each of them exactly, so that what was trained there is still part of the
    run. The rounds go on from the last of them.

    Args:
        found: As in `grow_plan`.
        asked: As in `grow_plan`.
        find_last_level: Returns the level at which a schedule reaches its target.

    Raises:
        ValueError: As `grow_plan`, and when the target is less sparse than before.
    """
    before, now = PruningSchedule.from_dict(found["schedule"]), PruningSchedule.from_dict(asked["schedule"])
    if before.without_targets != now.without_targets:
        return {}
    schedule = now.going_on_from(before)
    num_levels = find_last_level(schedule)
    # The controls of the last level move with it.
    levels = [num_levels if level == asked["num_levels"] else level for level in asked["control_levels"]]
    grown = grow_plan(found, {**asked, "num_levels": num_levels, "control_levels": levels})
    return {**grown, "schedule": schedule.to_dict()}

"""Threats to an experiment are told from its data: each where the data has it, and not where it has not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from statistical_report_generator.document import Points, Section
from statistical_report_generator.kinds import describe
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions
from tests.statistical_report_generator.claims.made_up import DENSE, move, with_controls
from tests.statistical_report_generator.summaries import count_layers, make_results

Change = Callable[[dict[str, Any]], None]


def make() -> dict[str, Any]:
    """Returns an experiment that learns, with curves that end later than their best."""
    controls = [move(-0.02), move(-0.03), move(-0.04)]
    results = make_results({(0, "ticket"): DENSE, **with_controls(2, move(0.001), *controls)}, environments=[{}])
    for row in results["trainings"]:
        row["history"]["curve"] = {"step": [50, 150, 1000], "validation_accuracy": [0.5, 0.9, 0.8]}
        row["history"]["early_stop"]["step"] = 150
        row |= {"layers": count_layers(row["density"], 0.95), "share_moved": 0.95}
    return results


def list_threats(results: dict[str, Any]) -> str:
    [source] = read_sources(results)
    [threats] = [one for one in describe(source, ExperimentOptions()) if one.title == "Threats to validity"]
    assert isinstance(threats, Section)
    [points] = [block for block in threats.blocks if isinstance(block, Points)]
    return "\n".join(points.items)


def set_curves(*values: float) -> Change:
    def change(results: dict[str, Any]) -> None:
        for row in results["trainings"]:
            row["history"]["curve"]["validation_accuracy"] = list(values)

    return change


def set_steps(step: int) -> Change:
    def change(results: dict[str, Any]) -> None:
        for row in results["trainings"]:
            row["history"]["early_stop"]["step"] = step

    return change


def drop_curves(results: dict[str, Any]) -> None:
    for row in results["trainings"]:
        del row["history"]["curve"]


def copy_dense(results: dict[str, Any]) -> None:
    for row in results["trainings"]:
        if row["branch"] == "ticket":
            row["history"]["early_stop"]["test_accuracy"] = DENSE[row["replicate"]]


def set_density(density: float, *branches: str) -> Change:
    def change(results: dict[str, Any]) -> None:
        for row in results["trainings"]:
            if row["level"] and row["branch"] in branches:
                row["density"] = density

    return change


def ask_for(sparsity: float) -> Change:
    def change(results: dict[str, Any]) -> None:
        results["plan"] = {"schedule": {"target_sparsity": sparsity}}

    return change


def empty_layer(branch: str, *replicates: int) -> Change:
    def change(results: dict[str, Any]) -> None:
        for row in results["trainings"]:
            if row["level"] == 2 and row["branch"] == branch and row["replicate"] in replicates:
                row["layers"]["fc2.weight"] |= {"num_kept": 0, "num_moved": 0}

    return change


def empty_many(results: dict[str, Any]) -> None:
    for row in results["trainings"]:
        if row["branch"] == "shuffled":
            empty = {"num_weights": 7, "num_kept": 0, "num_moved": 0, "dtype": "float32"}
            row["layers"] |= {f"layers.{number}.weight": dict(empty) for number in range(9)}


def stay(share: float, *dtypes: str) -> Change:
    def change(results: dict[str, Any]) -> None:
        for row in results["trainings"]:
            if row["branch"] == "random":
                row["share_moved"] = share - 0.01 * row["replicate"]
                for dtype, layer in zip(dtypes, row["layers"].values(), strict=False):
                    layer["dtype"] = dtype
                if not dtypes:
                    for layer in row["layers"].values():
                        del layer["dtype"]

    return change


def forget(*names: str) -> Change:
    def change(results: dict[str, Any]) -> None:
        for row in results["trainings"]:
            if row["level"] < 2:
                for name in names:
                    del row[name]

    return change


UNKNOWN = "was not looked at in 6 of 30 trainings:"
CASES: dict[str, tuple[Change, str]] = {
    "no curve": (drop_curves, "Learning is not shown: there is no curve of the dense network"),
    "worse at the end": (set_curves(0.9, 0.95, 0.9), "Learning is not shown in 6 of 6 dense runs: the validation acc"),
    "nothing moves": (set_curves(0.5, 0.5, 0.5), "In 6 of 6 dense runs no evaluation differs from another"),
    "best at first": (set_steps(50), "Trivial convergence: in 30 of 30 trainings the least validation loss"),
    "best at last": (set_steps(1000), "In 30 of 30 trainings the validation loss was least at the last evaluation"),
    "copies": (copy_dense, "At 64.0 % of the weights ticket and dense network have the same figures to the last"),
    "nothing kept": (set_density(0.0, "random"), "Layer collapse: nothing is kept by random of level 2."),
    "a layer emptied": (
        empty_layer("ticket", 0, 3),
        "Layer collapse: fc2.weight of ticket at level 2 keeps nothing (of 1,000 weights; 2 of 6 runs).",
    ),
    "many layers emptied": (
        empty_many,
        "layers.5.weight of shuffled at level 2 keeps nothing (of 7 weights; 6 of 6 runs) and 3 more.",
    ),
    "steps lost": (
        stay(0.125, "bfloat16", "bfloat16"),
        "Stagnation: in 6 of 30 trainings at most 12.5 % of the kept weights changed at all: steps smaller than",
    ),
    "steps lost, of two formats": (stay(0.49, "float16", "bfloat16"), "resolves (bfloat16, float16) are lost"),
    "steps lost, nobody knows of what": (stay(0.49), "number format resolves (which was not recorded) are lost"),
    "layers not recorded": (forget("layers"), f"Layer collapse {UNKNOWN} what each layer keeps was not recorded"),
    "movement not recorded": (
        forget("share_moved"),
        f"Stagnation (bfloat16) {UNKNOWN} how many weights moved was not recorded, as by earlier versions.",
    ),
    "another sparsity": (set_density(0.7, "shuffled"), "Not of the sparsity of their tickets: shuffled of level 2."),
    "sparsity missed": (ask_for(0.5), "Sparsity missed: 50 % was asked for, and 36 % is removed."),
}


@pytest.mark.parametrize("case", CASES)
def test_a_threat_is_told_where_the_data_has_it_and_not_else(case: str) -> None:
    change, words = CASES[case]
    sound = list_threats(make())
    assert words not in sound
    results = copy.deepcopy(make())
    change(results)
    assert words in list_threats(results)


def test_sparsity_as_asked_and_figures_at_the_end_are_no_threats() -> None:
    results = make()
    ask_for(0.36)(results)
    for row in results["trainings"]:
        row["history"]["end"]["step"] = 50
    assert "Sparsity missed" not in list_threats(results)
    assert "Trivial convergence" not in list_threats(results)


def test_a_simulation_says_that_nothing_was_trained() -> None:
    results = {"simulated": True, "trainings": [], "target_sparsity": 0.9}
    assert "no training. A ticket is found by training." in list_threats(results)


def test_half_that_moved_and_layers_of_a_network_that_keeps_nothing_are_no_threats_of_their_own() -> None:
    results = make()
    stay(0.5 + 0.01 * 5, "bfloat16")(results)
    set_density(0.0, "random")(results)
    for row in results["trainings"]:
        if row["branch"] == "random":
            row |= {"layers": {"fc1.weight": {"num_weights": 9, "num_kept": 0, "num_moved": 0}}, "share_moved": 0.0}
    threats = list_threats(results)
    assert "Stagnation" not in threats
    assert threats.count("Layer collapse") == 1
    assert "fc1.weight" not in threats


def test_a_simulation_has_layers_and_moves_nothing() -> None:
    row = {"replicate": 0, "level": 1, "branch": "simulated", "density": 0.5, "history": {}}
    row["layers"] = {"a": {"num_weights": 9, "num_kept": 0}, "b": {"num_weights": 9, "num_kept": 9}}
    results = {"simulated": True, "trainings": [row], "target_sparsity": 0.5}
    threats = list_threats(results)
    assert "Layer collapse: a of simulated at level 1 keeps nothing (of 9 weights; 1 of 1 runs)." in threats
    assert "Stagnation" not in threats

"""A forgery is found though the forger made every hash anew."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.studies.forging import (
    change_history,
    change_marker,
    change_mask,
    change_plan,
    change_provenance,
    change_record,
    change_state,
    keep_another_survivor,
    keep_one_more,
    keep_one_that_was_pruned_before,
    replace,
    revive,
    seal,
)

from lottery_tickets import Mask
from lottery_tickets._core.files import read_json, write_json
from lottery_tickets._core.folders import write_hashed
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments.folder import EARLY_STOP, MASK, RECORD, REWIND, WEIGHTS
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.schedules import PruningSchedule
from tests.lottery_tickets.experiments.verification.runs import DENSE, FIRST, LAST, failed, failures, is_found


def start_from_theta_k(run: Path) -> None:
    """Passes the ticket itself off as its control."""
    start = read_json(run / LAST.path / RECORD)["start_sha256"]
    change_record(run, Training(0, 2, "reinitialised"), start_sha256=start)


COUNTS, FOLLOWS = "its mask keeps the planned counts", "its mask follows from the trainings before it"
START, ZERO = "it started from the stored weights", "its pruned weights are zero"
WHOLE_STATE = "its checkpoints are those of a trained network"
HISTORY = "its history is one that the plan gives"
WHOLE = "its files are whole and unaltered"
SETTINGS, RESULTS = "its plan, environment and seeds are the run's", "the results are those the records give"
SHUFFLED = Training(0, 2, "shuffled")


def empty(run: Path, training: Training) -> None:
    change_state(run, training, WEIGHTS, lambda state: [state[name].zero_() for name in ("0.weight", "2.weight")])


FORGERIES: dict[str, tuple[Callable[[Path], object], Training | str, str]] = {
    "one weight more": (lambda run: change_mask(run, LAST, keep_one_more), LAST, COUNTS),
    "a mask not nested": (lambda run: change_mask(run, LAST, keep_one_that_was_pruned_before), LAST, FOLLOWS),
    "another survivor": (lambda run: change_mask(run, LAST, keep_another_survivor), LAST, FOLLOWS),
    "another shuffle": (lambda run: change_mask(run, SHUFFLED, keep_another_survivor), SHUFFLED, FOLLOWS),
    "another count": (lambda run: change_record(run, LAST, num_kept=1), LAST, COUNTS),
    "another theta_0": (
        lambda run: change_state(run, DENSE, REWIND, lambda state: state["2.weight"].mul_(2)),
        FIRST,
        START,
    ),
    "another start": (lambda run: change_record(run, FIRST, start_sha256=hash_state({})), FIRST, START),
    "a control that is the ticket": (start_from_theta_k, Training(0, 2, "reinitialised"), START),
    "a pruned weight in a checkpoint": (lambda run: revive(run, LAST), LAST, ZERO),
    "a pruned weight in a control": (lambda run: revive(run, SHUFFLED), SHUFFLED, ZERO),
    "other trained weights": (
        lambda run: change_state(run, FIRST, WEIGHTS, lambda state: state["0.weight"].mul_(-state["0.weight"])),
        LAST,
        FOLLOWS,
    ),
    "other seeds": (lambda run: change_record(run, FIRST, seeds={}), FIRST, SETTINGS),
    "another environment": (lambda run: change_record(run, FIRST, environment={}), FIRST, SETTINGS),
    "another plan in a record": (lambda run: change_record(run, FIRST, recipe_sha256=""), FIRST, SETTINGS),
    "another plan": (lambda run: change_plan(run, seed=43), FIRST, SETTINGS),
    "another rate": (
        lambda run: change_plan(run, schedule=PruningSchedule((("*", 0.4),), "global", 0.5).to_dict()),
        FIRST,
        COUNTS,
    ),
    "weights of another shape": (
        lambda run: change_state(run, LAST, WEIGHTS, lambda s: s.update({"0.weight": torch.zeros(9, 9)})),
        LAST,
        ZERO,
    ),
    "theta_0 of another shape": (
        lambda run: change_state(run, DENSE, REWIND, lambda s: s.update({"0.weight": torch.zeros(200, 200)})),
        FIRST,
        START,
    ),
    "weights without a layer": (
        lambda run: change_state(run, FIRST, WEIGHTS, lambda state: state.pop("0.weight")),
        LAST,
        FOLLOWS,
    ),
    "trained weights of another shape": (
        lambda run: change_state(run, FIRST, WEIGHTS, lambda s: s.update({"0.weight": torch.zeros(200, 200)})),
        LAST,
        FOLLOWS,
    ),
    "a last ticket zeroed": (lambda run: empty(run, LAST), LAST, WHOLE_STATE),
    "a zeroed control": (lambda run: empty(run, SHUFFLED), SHUFFLED, WHOLE_STATE),
    "biases that are NaN": (
        lambda run: change_state(run, LAST, WEIGHTS, lambda state: state["0.bias"].fill_(torch.nan)),
        LAST,
        WHOLE_STATE,
    ),
    "a tensor more": (
        lambda run: change_state(run, LAST, WEIGHTS, lambda state: state.update(more=torch.ones(1))),
        LAST,
        WHOLE_STATE,
    ),
    "another dtype": (
        lambda run: change_state(run, LAST, WEIGHTS, lambda s: s.update({"0.bias": s["0.bias"].double()})),
        LAST,
        WHOLE_STATE,
    ),
    "a fact more": (lambda run: change_record(run, LAST, remark="all is well"), LAST, SETTINGS),
    "another method": (lambda run: change_provenance(run, LAST, method="by hand"), LAST, FOLLOWS),
    "another level": (lambda run: change_provenance(run, LAST, level=1), LAST, FOLLOWS),
    "a version in a mask": (lambda run: change_provenance(run, DENSE, torch="1.0"), DENSE, FOLLOWS),
    "another source of a shuffle": (lambda run: change_provenance(run, SHUFFLED, seed=1), SHUFFLED, FOLLOWS),
    "another version in a record": (
        lambda run: change_record(
            run, LAST, environment={**read_json(run / LAST.path / RECORD)["environment"], "torch": "1.0"}
        ),
        LAST,
        SETTINGS,
    ),
    "another version of the run": (
        lambda run: change_marker(run, lambda stored: stored["environments"][0].update(torch="1.0")),
        LAST,
        SETTINGS,
    ),
    "an emptied history": (lambda run: change_record(run, LAST, history={}), LAST, HISTORY),
    "a moment more": (
        lambda run: change_history(run, LAST, lambda history: history.update(best=history["end"])),
        LAST,
        HISTORY,
    ),
    "an end without figures": (
        lambda run: change_history(run, LAST, lambda history: history.update(end={"step": 2})),
        LAST,
        HISTORY,
    ),
    "an end too early": (
        lambda run: change_history(run, LAST, lambda history: history["end"].update(step=1)),
        LAST,
        HISTORY,
    ),
    "an accuracy above 1": (
        lambda run: change_history(run, LAST, lambda history: history["end"].update(train_accuracy=1.5)),
        LAST,
        HISTORY,
    ),
    "a figure that is none": (
        lambda run: change_history(run, LAST, lambda history: history["end"].update(train_loss=None)),
        LAST,
        HISTORY,
    ),
    "an accuracy unlike the curve's": (
        lambda run: change_history(run, LAST, lambda history: history["end"].update(train_accuracy=0.5)),
        LAST,
        HISTORY,
    ),
    "a curve with a value less": (
        lambda run: change_history(run, LAST, lambda history: history["curve"]["train_loss"].pop(0)),
        LAST,
        HISTORY,
    ),
    "a perplexity unlike its loss": (
        lambda run: change_history(run, LAST, lambda history: history["curve"]["train_perplexity"].__setitem__(0, 1.0)),
        LAST,
        HISTORY,
    ),
    "a curve without accuracies": (
        lambda run: change_history(run, LAST, lambda history: history["curve"].pop("train_accuracy")),
        LAST,
        HISTORY,
    ),
    "a curve with a step twice": (
        lambda run: change_history(run, LAST, lambda history: history["curve"].update(step=[2, 2])),
        LAST,
        HISTORY,
    ),
    "a mask without a layer": (
        lambda run: Mask.from_tensors({"0.weight": torch.eye(5)}).save(run / FIRST.path / MASK),
        LAST,
        FOLLOWS,
    ),
}


def claim_accuracy(run: Path) -> None:
    results = read_json(run / "results.json")
    results["trainings"][2]["history"]["end"]["train_accuracy"] = 1.0
    write_json(run / "results.json", results)


def claim_environment(run: Path) -> None:
    results = read_json(run / "results.json")
    results["environments"][0]["torch"] = "0.0"
    write_json(run / "results.json", results)


RESULT_FORGERIES = {"another accuracy": claim_accuracy, "another environment in the results": claim_environment}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forgery_is_found_though_its_hashes_fit(run: Path, case: str) -> None:
    forge, training, name = FORGERIES[case]
    forge(run)
    seal(run)
    found = failures(run)
    assert (training.path if isinstance(training, Training) else training, name) in found
    assert not any(name == WHOLE for _, name in found), "the forger made every hash fit"


def test_the_kernels_never_see_a_state_that_does_not_fit_its_mask(run: Path) -> None:
    """They trust their sizes: beyond the end of the mask they would read memory that is not theirs."""
    FORGERIES["theta_0 of another shape"][0](run)
    seal(run)
    problems = [check.problem for check in failed(run) if (check.where, check.name) == (FIRST.path, START)]
    message = "a state must fit its mask, but '0.weight' has shape (200, 200) and its mask (8, 5); was a file altered?"
    assert problems == [message]


@pytest.mark.parametrize("case", RESULT_FORGERIES)
def test_forged_results_are_found(run: Path, case: str) -> None:
    RESULT_FORGERIES[case](run)
    assert failures(run) == {("results.json", RESULTS)}


LAYER, FRESH = "its layers are as it counts them", Training(0, 2, "reinitialised")


def change_layer(layers: dict[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {**layers, "0.weight": {**layers["0.weight"], **changes}}


LAYER_FORGERIES: dict[str, tuple[Training, Callable[[dict[str, Any]], Any]]] = {
    "a weight more kept": (LAST, lambda layers: change_layer(layers, num_kept=layers["0.weight"]["num_kept"] + 1)),
    "a weight more in all": (FIRST, lambda layers: change_layer(layers, num_weights=41)),
    "a weight less moved": (LAST, lambda layers: change_layer(layers, num_moved=layers["0.weight"]["num_moved"] - 1)),
    "another format": (FRESH, lambda layers: change_layer(layers, dtype="bfloat16")),
    "more moved than kept": (FRESH, lambda layers: change_layer(layers, num_moved=41)),
    "fewer than none moved": (FRESH, lambda layers: change_layer(layers, num_moved=-1)),
    "a number that is none": (FRESH, lambda layers: change_layer(layers, num_moved=True)),
    "a layer less": (SHUFFLED, lambda layers: {"0.weight": layers["0.weight"]}),
    "a layer more": (SHUFFLED, lambda layers: {**layers, "9.weight": layers["0.weight"]}),
    "a fact more": (SHUFFLED, lambda layers: change_layer(layers, remark="all is well")),
    "no object": (LAST, list),
    "rows that are none": (LAST, lambda layers: dict.fromkeys(layers, 1)),
    "nothing": (LAST, lambda _: None),
}


@pytest.mark.parametrize("case", LAYER_FORGERIES)
def test_forged_counts_of_layers_are_found(run: Path, case: str) -> None:
    training, forge = LAYER_FORGERIES[case]
    change_record(run, training, layers=forge(read_json(run / training.path / RECORD)["layers"]))
    with contextlib.suppress(ValueError):  # from garbage no results are collected
        seal(run, recounted=False)
    assert (training.path, LAYER) in failures(run)


# ----------------------------------------------------------------------------------------- what a validation split adds

CHOSEN = Training(0, 1, "ticket")


def shift_early_stop(history: dict[str, Any]) -> None:
    history["early_stop"] = {**history["early_stop"], "step": history["curve"]["step"][0]}


def raise_early_stop(history: dict[str, Any]) -> None:
    history["early_stop"]["validation_accuracy"] = 1.0


def cut_curve(history: dict[str, Any]) -> None:
    history["curve"] = {name: values[1:] for name, values in history["curve"].items()}


def stop_at_the_end(history: dict[str, Any]) -> None:
    history["early_stop"] = history["end"]


def forget_curve(history: dict[str, Any]) -> None:
    del history["curve"], history["early_stop"]


def forget_accuracies(history: dict[str, Any]) -> None:
    del history["curve"]["validation_accuracy"]


HISTORIES: dict[str, Callable[[dict[str, Any]], None]] = {
    change.__name__: change
    for change in (shift_early_stop, raise_early_stop, cut_curve, stop_at_the_end, forget_curve, forget_accuracies)
}


def test_a_run_with_early_stops_verifies_and_keeps_their_weights(workload_run: Path) -> None:
    assert failed(workload_run) == []
    history = read_json(workload_run / CHOSEN.path / RECORD)["history"]
    assert history["early_stop"]["step"] < history["end"]["step"], "the learning rate is so high that it stops early"
    assert (workload_run / CHOSEN.path / EARLY_STOP).exists()


@pytest.mark.parametrize("case", HISTORIES)
def test_a_history_that_disagrees_with_itself_is_found(workload_run: Path, case: str) -> None:
    change_history(workload_run, CHOSEN, HISTORIES[case])
    seal(workload_run)
    assert (CHOSEN.path, HISTORY) in failures(workload_run)


def test_an_early_stop_without_its_weights_is_found(workload_run: Path) -> None:
    (workload_run / CHOSEN.path / EARLY_STOP).unlink()
    seal(workload_run)
    assert failures(workload_run) == {(CHOSEN.path, ZERO), (CHOSEN.path, WHOLE_STATE)}


def test_early_stops_are_states_like_others(workload_run: Path) -> None:
    change_state(workload_run, CHOSEN, EARLY_STOP, lambda state: state["output.bias"].fill_(torch.inf))
    seal(workload_run)
    assert failures(workload_run) == {(CHOSEN.path, WHOLE_STATE)}


@pytest.mark.parametrize("rates", [{"*": 0.3}, {"*": 0.2, "output.weight": 0.1}])
def test_a_recipe_unlike_the_plan_is_found(workload_run: Path, rates: dict[str, float]) -> None:
    def change(stored: dict[str, Any]) -> None:
        stored["settings"]["subject"]["recipe"]["prune_rates"] = [list(pair) for pair in rates.items()]

    change_marker(workload_run, change)
    seal(workload_run, under_plan=True)
    assert ("run.json", "its settings agree with one another") in failures(workload_run)


@pytest.mark.parametrize("maker", ["somebody", "lottery-tickets evaluate --start", None])
def test_another_maker_is_found(workload_run: Path, maker: str | None) -> None:
    change_marker(workload_run, lambda stored: stored.update(made_by=maker))
    assert failures(workload_run) == {("run.json", "its settings agree with one another")}


def test_a_replicate_that_is_there_twice_is_found(workload_run: Path) -> None:
    for training in (DENSE, CHOSEN):
        replace(workload_run, Training(1, training.level, "ticket"), workload_run / training.path)
    seal(workload_run)
    assert (str(workload_run), "no replicate is there twice") in failures(workload_run)


@pytest.mark.parametrize("looks", [[], [1], [2, 1], [0, 2], [2, 2], [True, 2], ["2"], [1, 3]])
def test_looks_unlike_the_replicates_are_found(workload_run: Path, looks: list[Any]) -> None:
    write_hashed(workload_run / "looks.json", {"num_replicates": looks})
    seal(workload_run)
    assert failures(workload_run) == {("looks.json", "the looks are those at its replicates")}


# ----------------------------------------------------------------------------------------------------- plans that claim


@pytest.mark.parametrize(
    "claims", [{"num_levels": 10**8}, {"num_replicates": 10**8}, {"num_levels": 1000, "num_replicates": 10_000}]
)
def test_a_plan_that_claims_millions_of_trainings_is_refused_at_once(run: Path, claims: dict[str, int]) -> None:
    change_plan(run, **claims)
    start = time.perf_counter()
    assert is_found(run)
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize("value", [1.5, True, "1", None])
@pytest.mark.parametrize("name", ["num_levels", "num_replicates", "num_steps", "rewind_step", "seed"])
def test_numbers_of_another_kind_are_refused(run: Path, name: str, value: object) -> None:
    change_plan(run, **{name: value})
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        failed(run)

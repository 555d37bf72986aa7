"""A run is what it says: a fresh one verifies, and every tampering is found, also when the forger hashes anew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import Mask, compute_iterative_magnitude_pruning
from lottery_tickets._core.files import ASIDE, hash_file, read_json, write_json
from lottery_tickets._core.folders import HASH, hash_json, load_state, save_state, write_hashed
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments.folder import MASK, RECORD, REWIND, WEIGHTS, ExperimentFolder
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.results import collect_results
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.verification import Check, verify_run
from tests.models import make_mlp

DENSE, FIRST, LAST = (Training(0, level, "ticket") for level in (0, 1, 2))


def make_run(folder: Path, **settings: Any) -> None:  # noqa: ANN401 - settings of many types
    model = make_mlp(torch.float32, (5, 8, 3))
    data = [(torch.randn(16, 5), torch.randint(3, (16,)))]
    defaults: dict[str, Any] = {"control_levels": [2], "num_epochs": 2, "prune_rates": 0.3}
    compute_iterative_magnitude_pruning(model, data, 0.5, train=True, run_folder=folder, **{**defaults, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    make_run(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be tampered with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def failed(run: Path) -> list[Check]:
    return [check for check in verify_run(run) if check.problem]


def failures(run: Path) -> set[tuple[str, str]]:
    return {(check.where, check.name) for check in failed(run)}


def list_files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.mark.parametrize("settings", [{"rewind_epoch": 1}, {"rewinding": "learning_rate"}, {"control_levels": "none"}])
def test_a_fresh_run_verifies(tmp_path: Path, settings: dict[str, Any]) -> None:
    make_run(tmp_path / "run", **settings)
    assert failed(tmp_path / "run") == []


def test_a_run_verifies_wherever_it_lies(run: Path) -> None:
    """And every training is checked for each of its six properties, the run for its entries and its results."""
    assert failed(run) == []
    assert len(verify_run(run)) == 6 * 6 + 2
    assert verify_run(str(run)) == verify_run(run)


# --------------------------------------------------------------------------------------------------- careless tampering

FILES = (
    "run.json",
    "results.json",
    f"{DENSE.path}/rewind.safetensors",
    f"{FIRST.path}/record.json",
    f"{LAST.path}/mask.safetensors",
    f"{LAST.path}/weights.safetensors",
    "replicate-0/level-02-random/record.json",
)


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_found(run: Path, file: str) -> None:
    path = run / file
    content = path.read_bytes()
    for place in (0, len(content) - 2):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert is_found(run), f"byte {place} of {path}"
    path.write_bytes(content)
    assert failed(run) == []


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_cut_short_missing_or_empty_is_found(run: Path, file: str) -> None:
    path = run / file
    content = path.read_bytes()
    for shortened in (content[:-3], b"", None):
        path.unlink()
        if shortened is not None:
            path.write_bytes(shortened)
        assert is_found(run), f"{path} with {shortened!r}"
        path.write_bytes(content)
    assert failed(run) == []


def is_found(run: Path) -> bool:
    """Whether tampering is found; without a plan that can be read by a ValueError that names it."""
    try:
        return bool(failed(run))
    except ValueError as error:
        return str(run) in str(error)


def remove(path: Path) -> Path:
    shutil.rmtree(path)
    return path


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def swap(run: Path, a: Training, b: Training) -> None:
    aside = run / "aside"
    (run / a.path).rename(aside)
    (run / b.path).rename(run / a.path)
    aside.rename(run / b.path)


WHOLE, ELSE = "its files are whole and unaltered", "it holds no other trainings"
TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing training": (lambda run: remove(run / FIRST.path), WHOLE),
    "a missing control": (lambda run: remove(run / Training(0, 2, "random").path), WHOLE),
    "an empty training": (lambda run: empty(run / FIRST.path), WHOLE),
    "a file for a folder": (lambda run: shutil.copyfile(run / "run.json", remove(run / FIRST.path)), WHOLE),
    "an extra file": (lambda run: (run / FIRST.path / "extra").write_text("x"), WHOLE),
    "an extra folder": (lambda run: (run / FIRST.path / "extra").mkdir(), WHOLE),
    "an extra training": (lambda run: shutil.copytree(run / LAST.path, run / Training(0, 3, "ticket").path), ELSE),
    "an extra replicate": (lambda run: shutil.copytree(run / "replicate-0", run / "replicate-7"), ELSE),
    "a leftover": (lambda run: (run / "replicate-0" / f".level-01-ticket.x{ASIDE}").mkdir(), ELSE),
    "swapped levels": (lambda run: swap(run, FIRST, LAST), WHOLE),
    "swapped controls": (lambda run: swap(run, Training(0, 2, "shuffled"), Training(0, 2, "random")), WHOLE),
}


@pytest.mark.parametrize("case", TAMPERINGS)
def test_tampering_is_found_by_the_right_check(run: Path, case: str) -> None:
    tamper, name = TAMPERINGS[case]
    tamper(run)
    assert name in {name for _, name in failures(run)}


def test_swapped_replicates_are_found(tmp_path: Path) -> None:
    make_run(tmp_path, num_replicates=2, control_levels="none")
    swap(tmp_path, FIRST, Training(1, 1, "ticket"))
    assert {(FIRST.path, WHOLE), (Training(1, 1, "ticket").path, WHOLE)} <= failures(tmp_path)


# --------------------------------------------------------------------------------- forgeries, with all hashes made anew


def seal(run: Path) -> None:
    """Makes every hash fit again, as a careful forger would."""
    folder = ExperimentFolder.read(run)
    for training in folder.plan.list_all_trainings():
        record = read_json(run / training.path / RECORD)
        entries = sorted(path for path in (run / training.path).iterdir() if path.name != RECORD)
        seal_record(run, training, {**record, "files": {path.name: hash_file(path) for path in entries}})
    write_json(run / "results.json", collect_results(folder))


def seal_record(run: Path, training: Training, record: dict[str, Any]) -> None:
    write_hashed(run / training.path / RECORD, {name: value for name, value in record.items() if name != HASH})


def change_record(run: Path, training: Training, **changes: Any) -> None:  # noqa: ANN401 - facts of many types
    seal_record(run, training, {**read_json(run / training.path / RECORD), **changes})


def change_state(run: Path, training: Training, file: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_state(run / training.path / file)
    change(state)
    save_state(run / training.path / file, state)


def change_mask(run: Path, training: Training, change: Callable[[Tensor, Tensor], object]) -> None:
    """Changes the first layer's mask, given it and that of the training one level up."""
    mask, parent = load_mask(run, training), load_mask(run, training.parent)
    tensors = dict(mask)
    change(tensors["0.weight"], parent["0.weight"])
    changed = Mask.from_tensors(tensors, mask.provenance)
    changed.save(run / training.path / MASK)
    change_record(run, training, num_kept=changed.num_kept)


def load_mask(run: Path, training: Training) -> Mask:
    return Mask.load(run / training.path / MASK)


def keep_one_more(kept: Tensor, allowed: Tensor) -> None:
    kept[tuple((~kept & allowed).nonzero()[0])] = True


def keep_one_that_was_pruned_before(kept: Tensor, allowed: Tensor) -> None:
    kept[tuple(kept.nonzero()[0])] = False
    kept[tuple((~allowed).nonzero()[0])] = True


def keep_another_survivor(kept: Tensor, allowed: Tensor) -> None:
    place = tuple((~kept & allowed).nonzero()[0])
    kept[tuple(kept.nonzero()[0])] = False
    kept[place] = True


def revive(run: Path, training: Training) -> None:
    pruned = tuple((~load_mask(run, training)["0.weight"]).nonzero()[0])

    def change(state: dict[str, Tensor]) -> None:
        state["0.weight"][pruned] = 1e-30

    change_state(run, training, WEIGHTS, change)


def start_from_theta_k(run: Path) -> None:
    """Passes the ticket itself off as its control."""
    start = read_json(run / LAST.path / RECORD)["start_sha256"]
    change_record(run, Training(0, 2, "reinitialised"), start_sha256=start)


def claim_accuracy(run: Path) -> None:
    results = read_json(run / "results.json")
    results["trainings"][2]["history"]["end"]["train_accuracy"] = 1.0
    write_json(run / "results.json", results)


def claim_environment(run: Path) -> None:
    results = read_json(run / "results.json")
    results["environments"][0]["torch"] = "0.0"
    write_json(run / "results.json", results)


def claim_plan(run: Path, **changes: Any) -> None:  # noqa: ANN401 - settings of many types
    stored = read_json(run / "run.json")
    del stored[HASH]
    write_hashed(run / "run.json", {**stored, "settings": {**stored["settings"], **changes}})


COUNTS, FOLLOWS = "its mask keeps the planned counts", "its mask follows from the trainings before it"
START, ZERO = "it started from the stored weights", "its pruned weights are zero"
SETTINGS, RESULTS = "its plan, environment and seeds are the run's", "the results are those the records give"
SHUFFLED = Training(0, 2, "shuffled")

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
    "another plan": (lambda run: claim_plan(run, seed=43), FIRST, SETTINGS),
    "another rate": (
        lambda run: claim_plan(run, schedule=PruningSchedule((("*", 0.4),), "global", 0.5).to_dict()),
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
    "a mask without a layer": (
        lambda run: Mask.from_tensors({"0.weight": torch.eye(5)}).save(run / FIRST.path / MASK),
        LAST,
        FOLLOWS,
    ),
}
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


@pytest.mark.parametrize("value", [None, [], "text", {"trainings": None}, {"settings": {}, "environments": []}])
@pytest.mark.parametrize("file", ["results.json", "run.json", f"{FIRST.path}/record.json"])
@pytest.mark.parametrize("sealed", [True, False])
def test_json_of_another_form_is_found(run: Path, file: str, value: Any, sealed: bool) -> None:  # noqa: ANN401 - JSON
    path = run / file
    if sealed and isinstance(value, dict):
        value = {**value, HASH: hash_json(value)}
    write_json(path, value)
    assert is_found(run)


@pytest.mark.parametrize("name", ["files", "seeds", "environment", "num_kept"])
@pytest.mark.parametrize("value", [None, [1, [2]]])
def test_records_of_another_form_are_found(run: Path, name: str, value: Any) -> None:  # noqa: ANN401 - JSON
    change_record(run, LAST, **{name: value})
    assert failed(run)


# -------------------------------------------------------------------------------------------------------------- fuzzing


def read_values(path: Path) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return path.read_bytes()


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_random_damage_is_always_found(
    finished: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    run = tmp_path_factory.getbasetemp() / "fuzzed"
    if not run.exists():
        shutil.copytree(finished, run)
    path = data.draw(st.sampled_from(list_files(run)))
    content, values = path.read_bytes(), read_values(path)
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        damaged[place] ^= data.draw(st.integers(0, 255))
    try:
        path.write_bytes(damaged[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        harmless = path.name in ("run.json", "results.json") and read_values(path) == values  # another kind of space
        assert is_found(run) or path.read_bytes() == content or harmless
    finally:
        path.write_bytes(content)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing", __file__):
        with pytest.raises(ValueError, match="must be the folder of an experiment"):
            verify_run(folder)

"""A search that stops goes on from its folder to the same bits, and refuses the folder of another."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lottery_tickets import (
    EarlyBirdWatcher,
    compute_early_bird_tickets,
)
from lottery_tickets._core import environment
from lottery_tickets._core.files import ASIDE, exclusive_lock
from lottery_tickets._core.folders import read_hashed
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.early_bird import folder, watcher
from tests.lottery_tickets.early_bird.digits import (
    find_digits,
    make_arguments,
    make_digits_loader,
    make_held_out,
    strip,
)
from tests.models import make_lenet


class Interrupt(Exception):  # noqa: N818 - stands for KeyboardInterrupt
    """Comes in the middle of a run."""


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"use_sgd": False, "learning_rate": 1e-3, "momentum": 0.0},
        {"use_magnitude_ranking": False},
        {"check_steps": 13},
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, trained = find_digits(run_folder=tmp_path / "whole", convergence_threshold=0.999, **arguments)
    assert not (tmp_path / "whole" / "check-0001").exists()
    again, _ = find_digits(run_folder=tmp_path / "whole", convergence_threshold=0.999, **arguments)
    assert strip(again) == strip(whole)

    check, calls = EarlyBirdWatcher.check, []

    def fail(watcher: EarlyBirdWatcher, *positional: Any) -> Any:  # noqa: ANN401 - as check
        calls.append(1)
        if len(calls) == 4:
            raise Interrupt("the plug is pulled")
        return check(watcher, *positional)

    monkeypatch.setattr(EarlyBirdWatcher, "check", fail)
    model = make_lenet()
    arguments = {**arguments, "run_folder": tmp_path / "cut", "convergence_threshold": 0.999}
    settings = make_arguments(**arguments)
    with pytest.raises(Interrupt, match="the plug"):
        compute_early_bird_tickets(model, make_digits_loader(), **settings)
    assert hash_state(copy_state(model)) == hash_state(copy_state(make_lenet()))
    resumed = compute_early_bird_tickets(model, make_digits_loader(), **settings)
    assert strip(resumed) == strip(whole)
    assert hash_state(copy_state(model)) == hash_state(copy_state(trained))
    with pytest.raises(ValueError, match=r"these differ: .*learning_rate is 0.* there and 0.2 here"):
        compute_early_bird_tickets(
            make_lenet(), make_digits_loader(), **make_arguments(**{**arguments, "learning_rate": 0.2})
        )


def test_a_run_says_from_which_check_on_which_environment_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"run_folder": tmp_path, "convergence_threshold": 0.9999, "check_interval": 1}
    find_digits(**arguments, max_epochs=2)
    monkeypatch.setattr(environment, "version", lambda name: f"{name} of tomorrow")
    with pytest.raises(ValueError, match="must be continued in the environment it was begun in"):
        find_digits(**arguments, max_epochs=4)
    find_digits(**arguments, max_epochs=4, accept_changed_environment=True)
    [last] = tmp_path.glob("check-*")
    found = read_hashed(last / folder.RECORD)["environments"]
    assert [entry["from_check"] for entry in found] == [1, 3]
    assert found[0]["environment"]["torch"] != found[1]["environment"]["torch"] == "torch of tomorrow"


def test_a_run_that_has_converged_is_not_trained_on(tmp_path: Path) -> None:
    first, trained = find_digits(run_folder=tmp_path)
    assert first["converged"]
    again, model = find_digits(run_folder=tmp_path)
    assert strip(again) == strip(first)
    assert hash_state(copy_state(model)) == hash_state(copy_state(trained))


@pytest.mark.parametrize("name", ["model.safetensors", "watch.safetensors", "trainer.pt", "history.json"])
def test_a_run_that_was_cut_short_or_altered_is_refused(name: str, tmp_path: Path) -> None:
    settings = {"max_epochs": 1, "run_folder": tmp_path / "run"}
    find_digits(**settings)
    [path] = (tmp_path / "run").glob(f"check-*/{name}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        ValueError, match=f"must hold what the run saved, but {name} differ|{name} must be a whole JSON file"
    ):
        find_digits(**settings)


def test_a_folder_of_others_is_refused_and_nothing_in_it_is_touched(tmp_path: Path) -> None:
    """It once deleted every `.*.part` below it and overwrote start.safetensors."""
    contents = {".download.part": b"half a film", "start.safetensors": b"somebody's weights", "deep/.x.part": b"x"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"but it holds other files \(.download.part, deep, start.safetensors\)"):
        find_digits(max_epochs=1, run_folder=tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path)): path.read_bytes() for path in files} == contents


def test_a_folder_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / ".lock"), pytest.raises(ValueError, match="one process at a time"):
        find_digits(max_epochs=1, run_folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_leftovers_of_a_kill_go_and_nothing_else(tmp_path: Path) -> None:
    find_digits(max_epochs=1, run_folder=tmp_path)
    [check] = tmp_path.glob("check-*")
    ours = [tmp_path / f".check-0002.0a1b2c3d{ASIDE}", check.with_name(f".{check.name}.deadbeef{ASIDE}")]
    for leftover in ours:
        leftover.mkdir()
        (leftover / "model.safetensors").write_bytes(b"half")
    foreign = tmp_path / ".notes.part"
    foreign.write_text("mine")
    find_digits(max_epochs=2, run_folder=tmp_path)
    assert not any(path.exists() for path in ours)
    assert foreign.read_text() == "mine"


def test_a_kill_between_a_check_and_the_removal_of_the_one_before_leaves_nothing(tmp_path: Path) -> None:
    find_digits(max_epochs=2, run_folder=tmp_path)
    last = tmp_path / "check-0002"
    shutil.copytree(last, tmp_path / "check-0001")
    notes = tmp_path / "check-list.txt"
    notes.write_text("mine")
    find_digits(max_epochs=2, run_folder=tmp_path)  # is over, so no further check removes it
    assert set(tmp_path.glob("check-*")) == {last, notes}


ALTERATIONS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "an edited loss": ("check-*/history.json", lambda content: content.replace(b'"epoch": 1', b'"epoch": 2')),
    "another record": ("check-*/record.json", lambda content: content.replace(b'"model', b'"nodel')),
    "other settings": ("run.json", lambda content: content.replace(b'"seed"', b'"seeds"')),
    "other starting weights": ("start.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
}


@pytest.mark.parametrize("case", ALTERATIONS)
def test_what_was_edited_is_refused_and_never_used(tmp_path: Path, case: str) -> None:
    find_digits(max_epochs=1, run_folder=tmp_path)
    pattern, alter = ALTERATIONS[case]
    [path] = tmp_path.glob(pattern)
    content = path.read_bytes()
    assert alter(content) != content
    path.write_bytes(alter(content))
    with pytest.raises(ValueError, match=r"altered|hash"):
        find_digits(max_epochs=2, run_folder=tmp_path)


def test_a_run_that_could_not_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "save_state", fail)
    with pytest.raises(OSError, match="No space left"):
        find_digits(max_epochs=1, run_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_earlier_evidence_or_of_another_probe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(watcher, "GENERATION", 1)
        find_digits(run_folder=tmp_path / "old", max_epochs=1)
    with pytest.raises(ValueError, match=r"with what it was begun with.*evidence is 1 there and 4 here"):
        find_digits(run_folder=tmp_path / "old", max_epochs=1)
    find_digits(run_folder=tmp_path / "new", max_epochs=1, probe=make_held_out())
    find_digits(run_folder=tmp_path / "new", max_epochs=2, probe=make_held_out())
    with pytest.raises(ValueError, match=r"these differ: probe.num_samples is \d+ there and 128 here; probe.sha256"):
        find_digits(run_folder=tmp_path / "new", max_epochs=2, probe=make_held_out()[:2])
    with pytest.raises(ValueError, match=r"probe\.held_out is True there and False here"):
        find_digits(run_folder=tmp_path / "new", max_epochs=2)

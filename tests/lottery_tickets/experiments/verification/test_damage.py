"""A fresh run verifies, and careless damage to it is found."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.studies.forging import change_record, swap
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_tickets._core.files import ASIDE, write_json
from lottery_tickets._core.folders import HASH, hash_json
from lottery_tickets.experiments.plan import Training
from lottery_tickets.experiments.verification import verify_run
from tests.lottery_tickets.experiments.verification.runs import (
    DENSE,
    FIRST,
    LAST,
    failed,
    failures,
    is_found,
    list_files,
    make_run,
)


@pytest.mark.parametrize("settings", [{"rewind_epoch": 1}, {"rewinding": "learning_rate"}, {"control_levels": "none"}])
def test_a_fresh_run_verifies(tmp_path: Path, settings: dict[str, Any]) -> None:
    make_run(tmp_path / "run", **settings)
    assert failed(tmp_path / "run") == []


def test_a_run_verifies_wherever_it_lies(run: Path) -> None:
    """And every training is checked for each of its nine properties, the run for five of its own."""
    assert failed(run) == []
    assert len(verify_run(run)) == 6 * 9 + 5
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


def remove(path: Path) -> Path:
    shutil.rmtree(path)
    return path


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def move_and_link(run: Path, entry: str) -> None:
    """Puts the same content elsewhere and a link to it in its place."""
    (run / entry).rename(run.parent / "elsewhere")
    (run / entry).symlink_to(run.parent / "elsewhere")


WHOLE, ELSE = "its files are whole and unaltered", "it holds nothing else"
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
    "a file in a replicate": (lambda run: (run / "replicate-0" / "notes.txt").write_text("x"), ELSE),
    "a file at the top": (lambda run: (run / "notes.txt").write_text("x"), ELSE),
    "a folder at the top": (lambda run: (run / "notes").mkdir(), ELSE),
    "a folder for a file": (lambda run: (run / "accuracy.png").mkdir(), ELSE),
    "a link at the top": (lambda run: (run / "summary.json").symlink_to(run / "results.json"), ELSE),
    "a link for a replicate": (lambda run: move_and_link(run, "replicate-0"), ELSE),
    "a link for a training": (lambda run: move_and_link(run, FIRST.path), WHOLE),
    "a link for a mask": (lambda run: move_and_link(run, f"{FIRST.path}/mask.safetensors"), WHOLE),
    "a pipe": (lambda run: os.mkfifo(run / FIRST.path / "pipe"), WHOLE),
    "a lock that holds something": (lambda run: (run / ".lock").write_text("x"), ELSE),
    "swapped levels": (lambda run: swap(run, FIRST.path, LAST.path), WHOLE),
    "swapped controls": (lambda run: swap(run, Training(0, 2, "shuffled").path, Training(0, 2, "random").path), WHOLE),
}


@pytest.mark.parametrize("case", TAMPERINGS)
def test_tampering_is_found_by_the_right_check(run: Path, case: str) -> None:
    tamper, name = TAMPERINGS[case]
    tamper(run)
    assert name in {name for _, name in failures(run)}


def test_swapped_replicates_are_found(tmp_path: Path) -> None:
    make_run(tmp_path, num_replicates=2, control_levels="none")
    swap(tmp_path, FIRST.path, Training(1, 1, "ticket").path)
    assert {(FIRST.path, WHOLE), (Training(1, 1, "ticket").path, WHOLE)} <= failures(tmp_path)


# --------------------------------------------------------------------------------- forgeries, with all hashes made anew
OTHER_FORMS: tuple[dict[str, Any], ...] = ({"trainings": None}, {"settings": {}, "environments": []})


@pytest.mark.parametrize(
    "value", [None, [], "text", *OTHER_FORMS, *({**form, HASH: hash_json(form)} for form in OTHER_FORMS)]
)
@pytest.mark.parametrize("file", ["results.json", "run.json", f"{FIRST.path}/record.json"])
def test_json_of_another_form_is_found(run: Path, file: str, value: Any) -> None:  # noqa: ANN401 - JSON
    path = run / file
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
    must = "must be the folder of an experiment, but"
    for folder, error, reason in (
        (tmp_path, ValueError, r"has no run\.json"),
        (tmp_path / "missing", FileNotFoundError, "there is no such folder"),
        (__file__, NotADirectoryError, "is a file"),
    ):
        with pytest.raises(error, match=f"{must} {reason}"):
            verify_run(folder)

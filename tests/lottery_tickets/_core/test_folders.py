"""Folders and files that a call goes on from: whose they are, who holds them, and what is never used or removed."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lottery_tickets import create_magnitude_mask
from lottery_tickets._core.files import ASIDE, exclusive_lock, write_json, writing_folder
from lottery_tickets._core.folders import MARKER, RunFolder, load_state, save_state
from lottery_tickets._core.identity.code import identify_callable
from lottery_tickets._core.identity.identities import Identity
from lottery_tickets._core.kept_file import KeptFile
from lottery_tickets._core.records import Record
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets._core.tensor_files.whole import write_tensors

FOLDER_KIND, MAKER = "a test", "test_folders"
RECORD = Record("kept", {})


def open_folder(path: Path, *, kind: str = FOLDER_KIND, maker: str = MAKER, **settings: object) -> None:
    with RunFolder(path, kind, maker).opened(settings or {"a": 1}):
        (path / "result").touch()


def test_a_folder_of_another_kind_or_maker_says_whose_it_is(tmp_path: Path) -> None:
    open_folder(tmp_path)
    for changes in ({"kind": "another test"}, {"maker": "somebody"}):
        with pytest.raises(ValueError, match="it is that of a test made by test_folders; go on with that"):
            open_folder(tmp_path, **changes)
    open_folder(tmp_path)


def test_settings_are_compared_by_name(tmp_path: Path) -> None:
    open_folder(tmp_path, a=1, nested={"b": [1, 2], "c": None})
    with pytest.raises(ValueError, match=r"these differ: a is 1 there and 2 here; nested\.b is \[1, 2\] there and 3"):
        open_folder(tmp_path, a=2, nested={"b": 3, "c": None})


def test_what_was_never_begun_may_be_begun_with_something_else(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no"), RunFolder(tmp_path / "run", FOLDER_KIND).opened({"a": 1}):
        raise OSError("no")
    assert not (tmp_path / "run").exists()
    tmp_path.joinpath("mine").mkdir()
    with pytest.raises(OSError, match="no"), RunFolder(tmp_path / "mine", FOLDER_KIND).opened({"a": 1}):
        raise OSError("no")
    assert list((tmp_path / "mine").iterdir()) == []
    open_folder(tmp_path / "mine", a=2)


def test_what_stopped_a_run_is_what_is_said(tmp_path: Path) -> None:
    """A folder that could not be removed again once was the error, "Directory not empty", in place of its cause."""

    def begin_and_stop() -> None:
        with RunFolder(tmp_path / "run", FOLDER_KIND).opened({"a": 1}):
            (tmp_path / "run" / f".half.0{ASIDE}").mkdir()
            raise KeyError("the cause")

    with pytest.raises(KeyError, match="the cause"):
        begin_and_stop()
    assert not (tmp_path / "run").exists()


def test_what_workers_that_were_ended_have_left_goes_at_once(tmp_path: Path) -> None:
    half = tmp_path / "part" / f".half.0{ASIDE}"

    def stop_in_the_middle() -> None:
        with RunFolder(tmp_path, FOLDER_KIND).opened({"a": 1}):
            half.mkdir(parents=True)
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        stop_in_the_middle()
    assert (half.parent.exists(), half.exists()) == (True, False)


def test_what_a_run_inside_is_writing_is_left_alone(tmp_path: Path) -> None:
    """The run inside is held by somebody else, and cleans up for itself when it is opened."""
    open_folder(tmp_path)
    inside = tmp_path / "deep" / "inside"
    of_inside, of_ours = inside / f".half.0{ASIDE}", inside.parent / f".half.0{ASIDE}"
    with RunFolder(inside, FOLDER_KIND, MAKER).opened({"a": 1}):
        for leftover in (of_inside, of_ours):
            leftover.touch()
        open_folder(tmp_path)
        assert (of_inside.exists(), of_ours.exists()) == (True, False)
        (inside / "result").touch()
    open_folder(inside)
    assert not of_inside.exists()


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="must be a folder or not exist, but is a file"):
        open_folder(tmp_path / "file")


def test_links_are_neither_followed_nor_their_targets_removed(tmp_path: Path) -> None:
    open_folder(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f".theirs.0{ASIDE}").write_text("x")
    (tmp_path / "run" / "link").symlink_to(outside)
    (tmp_path / "run" / f".ours.0{ASIDE}").symlink_to(outside)
    open_folder(tmp_path / "run")
    assert [path.name for path in outside.iterdir()] == [f".theirs.0{ASIDE}"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"link", "result", MARKER, ".lock"}


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = "import sys; from tests.lottery_tickets._core.test_folders import *; open_folder(Path(sys.argv[1]))"
    with RunFolder(tmp_path, FOLDER_KIND, MAKER).opened({"a": 1}):
        before = sorted(path.name for path in tmp_path.iterdir())
        second = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
        assert "one process at a time" in second.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("mask", "of_files", "of_folders"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_files_and_folders_follow_the_umask(tmp_path: Path, mask: int, of_files: int, of_folders: int) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "file.json", 1)
        create_magnitude_mask({"weight": torch.ones(3, 2)}, 0.5).save(tmp_path / "mask.safetensors")
        with writing_folder(tmp_path / "folder") as aside:
            write_json(aside / "file.json", 1)
        open_folder(tmp_path / "run")
    finally:
        os.umask(before)
    files, folders = ("file.json", "mask.safetensors", "folder/file.json", f"run/{MARKER}"), ("folder", "run")
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in files} == {of_files}
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in folders} == {of_folders}


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def stop_in_the_middle() -> None:
        with writing_folder(tmp_path / "folder") as aside:
            (aside / "half").touch()
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        stop_in_the_middle()
    assert list(tmp_path.iterdir()) == []


def test_a_kept_file_is_ours_or_refused_and_leaves_no_lock(tmp_path: Path) -> None:
    file = KeptFile(tmp_path / "kept.json", RECORD)
    with file.opened() as found:
        assert found is None
        file.write({"a": 1})
        in_use = rf"{file.path} must be used by one process at a time"
        with pytest.raises(ValueError, match=in_use), KeptFile(file.path, RECORD).opened():
            pass
    with file.opened() as found:
        assert found is not None
        assert (found["schema"], found["a"]) == ("lottery-tickets kept 1", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
    file.path.write_text(file.path.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(ValueError, match="was altered"), file.opened():
        pass
    file.path.write_text("{}")
    with pytest.raises(ValueError, match="holds something else"), file.opened():
        pass
    assert file.path.read_text() == "{}"


def test_a_lock_that_its_holder_has_removed_is_not_taken(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive_lock(lock):
        lock.unlink()
        with exclusive_lock(lock):
            assert lock.exists()


def test_a_lock_that_the_system_cannot_give_is_not_one_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="No locks available"), exclusive_lock(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("name", ["kept.json", "kept[1].json"])
def test_leftovers_of_a_kept_file_go_and_those_of_others_stay(tmp_path: Path, name: str) -> None:
    ours, lock = tmp_path / f".{name}.0a1b2c3d{ASIDE}", tmp_path / f".{name}.lock"
    others = tmp_path / f".{name}.of-another.json.0a1b2c3d{ASIDE}"
    for path in (ours, lock, others):
        path.touch()
    with KeptFile(tmp_path / name, RECORD).opened():
        assert not ours.exists()
    assert list(tmp_path.iterdir()) == [others]


def test_a_folder_in_place_of_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, Path()):
        with pytest.raises(IsADirectoryError, match="Is a directory"):
            write_json(path, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{}", '{"mine": 1}', "not JSON", "[]"])
@pytest.mark.parametrize("others", [(), ("thesis.tex",)])
def test_a_run_json_of_somebody_else_is_neither_replaced_nor_removed(
    tmp_path: Path, content: str, others: tuple[str, ...]
) -> None:
    for name in (MARKER, *others):
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=MARKER):
        open_folder(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys((MARKER, *others), content)


def test_what_cannot_be_compared_with_before_is_told_from_then_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, FOLDER_KIND, MAKER)
    before = identify_callable(lambda: 1)
    with folder.opened({}, identities={"trainer_fn": before}):
        (tmp_path / "result").touch()
    assert folder.list_unidentified() == []
    of_another_python: Identity = {**identify_callable(lambda: 2), "bytecode": "another"}
    with folder.opened({}, identities={"trainer_fn": of_another_python}):
        pass
    [said] = folder.list_unidentified()
    assert said.endswith("but once it could not be compared with that of before")
    with folder.opened({}, identities={"trainer_fn": before}):
        assert folder.list_unidentified() == [said]


def test_tied_weights_are_one_tensor_again_after_a_trip_to_the_disk(tmp_path: Path) -> None:
    """So that pruning a state under one name prunes it under the other."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    state = copy_state(model)
    assert state["0.weight"] is state["1.weight"]
    save_state(tmp_path / "state.safetensors", state)
    found = load_state(tmp_path / "state.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {n: t.tolist() for n, t in state.items()}
    found["0.weight"].zero_()
    assert not found["1.weight"].any()
    assert found["2.weight"].any()


@pytest.mark.parametrize("ties", ['{"2.weight": "0.weight"}', '{"1.weight": "none"}', '["0.weight"]', "{"])
def test_ties_that_are_none_are_refused(tmp_path: Path, ties: str) -> None:
    state = copy_state(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)))
    path = tmp_path / "state.safetensors"
    write_tensors(path, state, {"state_sha256": hash_state(state), "tied_names": ties})
    with pytest.raises(ValueError, match=r"state\.safetensors must name equal tensors as tied, but "):
        load_state(path)

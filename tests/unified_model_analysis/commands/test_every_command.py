"""What holds for all commands that write: the same files anywhere, nothing of others touched, the cause said."""

import shutil
from pathlib import Path

import pytest

from lottery_tickets import load_results
from lottery_tickets._core import environment
from lottery_tickets._core.files import ASIDE, exclusive_lock
from tests.unified_model_analysis.commands.every_command import (
    COMMANDS,
    HOLDING,
    forget_times,
    make_words,
    read_files,
)
from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main


@pytest.mark.parametrize("name", COMMANDS)
def test_two_runs_differ_in_nothing_but_times(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(given.parent)
    places = [(given, tmp_path / "here"), (Path(given.name), tmp_path / "in" / "another" / "place")]
    for networks, out in places:
        assert main(make_words(name, networks, out)) == 0
    here, there = (read_files(out) for _, out in places)
    assert here
    assert forget_times(here) == forget_times(there)
    for folder in (given, tmp_path):
        assert [path for path, content in here.items() if str(folder).encode() in content] == []


@pytest.mark.parametrize("name", HOLDING)
def test_a_folder_of_others_and_one_in_use_are_refused_as_they_are(
    name: str, given: Path, tmp_path: Path, capsys: Output
) -> None:
    others, used = tmp_path / "others", tmp_path / "used"
    for folder in (others, used):
        folder.mkdir()
    for path in (".film.part", "results.json", "start.safetensors", "landscape.png"):
        (others / path).write_bytes(b"mine")
    with exclusive_lock(used / ".lock"):
        before = read_files(tmp_path)
        for folder, reason in ((others, "it holds other files"), (used, "one process at a time")):
            assert main(make_words(name, given, folder)) == 2
            assert reason in capsys.readouterr().err
        assert read_files(tmp_path) == before


def test_a_file_is_compared_by_what_it_holds_and_not_by_its_path(given: Path, tmp_path: Path, capsys: Output) -> None:
    networks, out = tmp_path / "networks", tmp_path / "out"
    shutil.copytree(given, networks)
    assert main(make_words("landscape", given, out)) == 0
    assert main(make_words("landscape", networks, out)) == 0
    (networks / "second.safetensors").replace(networks / "first.safetensors")
    assert main(make_words("landscape", networks, out)) == 2
    assert "these differ: --checkpoint is 'sha256:" in capsys.readouterr().err


@pytest.mark.parametrize("name", HOLDING)
def test_leftovers_of_a_kill_go_at_every_level(name: str, given: Path, tmp_path: Path) -> None:
    assert main(make_words(name, given, tmp_path)) == 0
    before = read_files(tmp_path)
    places = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for place in places:
        (place / f".half.0a1b2c3d{ASIDE}").mkdir()
        (place / f".half.0a1b2c3d{ASIDE}" / "file").touch()
    for path in list(before):
        (tmp_path / path).with_name(f".{Path(path).name}.0a1b2c3d{ASIDE}").touch()
    assert main(make_words(name, given, tmp_path)) == 0
    assert read_files(tmp_path).keys() == before.keys()
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(ASIDE)] == []


@pytest.mark.parametrize("name", ["imp", "early-bird", "connectivity, trained"])
def test_another_environment_is_refused_until_it_is_accepted_and_then_said(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    results = "summary.json" if name == "imp" else "results.json"
    words = make_words(name, given, tmp_path)
    assert main(words) == 0
    said = "Trained in 2 environments: the same command need not give the same bits again."
    assert said not in load_results(tmp_path / results)["findings"]
    monkeypatch.setattr(environment, "version", lambda package: f"{package} of tomorrow")
    assert main(words) == 2
    refused = capsys.readouterr().err
    assert "torch of tomorrow" in refused
    assert "(--accept-changed-environment)" in refused
    assert main([*words, "--accept-changed-environment"]) == 0
    assert said in capsys.readouterr().out
    assert said in load_results(tmp_path / results)["findings"]


def test_a_place_that_cannot_hold_a_file_is_said_before_any_work(
    given: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    in_file = f"Not a directory at {tmp_path / 'file'}; name another place"
    places = {".": "Is a directory at .; name a file", "file/x.json": in_file}
    for place, reason in places.items():
        for name in ("evaluate", "score") if place == "." else ("evaluate", "export", "score"):
            words = make_words(name, given, tmp_path)
            assert main([words[0], "--output", place, *words[3:]]) == 2
            assert capsys.readouterr().err == f"lottery-tickets: {reason}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""No command replaces a file that exists unless it is told to, and none takes a place for results from its words."""

from pathlib import Path

import pytest

from tests.unified_model_analysis.commands.every_command import COMMANDS, OF_FILES, make_words
from tests.unified_model_analysis.test_cli import Output, refuse
from unified_model_analysis.cli import main

FILES = {
    "evaluate": ["found.json"],
    "export": ["small.safetensors", "found.json"],
    "diff": ["found.json"],
    "score": ["found.json", "mask.safetensors", "scores.safetensors"],
    "mask": ["mask.safetensors"],
}


@pytest.mark.parametrize(("command", "file"), [(name, file) for name in OF_FILES for file in FILES[name]])
def test_a_file_that_exists_is_kept_until_force_is_said(
    command: str, file: str, given: Path, tmp_path: Path, capsys: Output
) -> None:
    own = (given / "first.safetensors").read_bytes()
    (tmp_path / file).write_bytes(own)
    message = refuse(make_words(command, given, tmp_path), capsys)
    assert message.startswith(f"lottery-tickets: {tmp_path / file} exists and would be replaced; name another place, ")
    assert (tmp_path / file).read_bytes() == own
    assert [path.name for path in tmp_path.iterdir()] == [file]
    (tmp_path / file).unlink()
    assert main(make_words(command, given, tmp_path)) == 0
    before = (tmp_path / file).read_bytes()
    assert main([*make_words(command, given, tmp_path), "--force"]) == 0
    assert len((tmp_path / file).read_bytes()) == pytest.approx(len(before), rel=0.1)


@pytest.mark.parametrize("command", ["evaluate", "export", "score"])
def test_force_replaces_results_and_not_weights(command: str, given: Path, tmp_path: Path, capsys: Output) -> None:
    own = (given / "first.safetensors").read_bytes()
    (tmp_path / "found.json").write_bytes(own)
    message = refuse([*make_words(command, given, tmp_path), "--force"], capsys)
    assert "found.json" in message
    assert (tmp_path / "found.json").read_bytes() == own


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "diff"])  # which takes any number of files
def test_places_are_no_words_of_their_own(name: str, given: Path, tmp_path: Path, capsys: Output) -> None:
    """As commands were before: the first word was where results went, and the next command took it for an input."""
    words = [word for word in make_words(name, given, tmp_path) if word != "--output"]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "output" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_comparing_and_reporting_keep_files_too(given: Path, tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "out.json"
    masks = [given / "mask.safetensors", tmp_path / "copy.safetensors"]
    masks[1].write_bytes(masks[0].read_bytes())
    words = ["compare", *map(str, masks), "--output", str(out)]
    assert main(words) == 0
    assert "exists and would be replaced" in refuse(words, capsys)
    assert main([*words, "--force"]) == 0
    report = ["report", str(out), "--output", str(tmp_path / "reports")]
    assert main(report) == 0
    assert "report.pdf exists and would be replaced" in refuse(report, capsys)
    assert main([*report, "--force"]) == 0
    (tmp_path / "reports" / "report.pdf").write_bytes(b"mine")
    (tmp_path / "reports" / "report.html").write_text("mine")
    assert "report" in refuse([*report, "--force"], capsys)
    assert (tmp_path / "reports" / "report.pdf").read_bytes() == b"mine"

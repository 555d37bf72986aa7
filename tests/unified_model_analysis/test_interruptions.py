"""What a command does when the disk is full or read-only, or a scheduler ends it: one sentence, no half file."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import Mask
from lottery_tickets._core.files import ASIDE
from tests.models import save_tiny_llama
from unified_model_analysis import cli
from unified_model_analysis.cli import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "import sys; from unified_model_analysis.cli import main; sys.exit(main())"]
SETTINGS = ["--levels=1", "--controls=1", "--replicates=1", "--steps=20", "--evaluate-every=20", "--workers=1"]


def mount(place: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one training and a half."""
    try:
        mount(tmp_path, "600k")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def list_leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(ASIDE)]


def test_a_full_disk_is_said_and_after_room_is_made_the_run_ends_as_it_would_have(
    small_disk: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run, whole = small_disk / "run", tmp_path_factory.mktemp("whole") / "run"
    assert main(["imp", "--output", str(run), *SETTINGS]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    place = run / "replicate-0" / "level-01-ticket"
    cause = f"No space left on device at {place}; make room and run the same command again"
    assert message == f"lottery-tickets: {cause}"
    assert list_leftovers(small_disk) == []
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    for folder in (run, whole):
        assert main(["imp", "--output", str(folder), *SETTINGS]) == 0
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert [path for path in files if (run / path).read_bytes() != (whole / path).read_bytes()] == []


def test_a_disk_that_may_not_be_written_is_said(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert main(["imp", "--output", str(small_disk / "run"), *SETTINGS]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"lottery-tickets: Read-only file system at {small_disk / 'run'}; name a place that can be written"


@pytest.mark.slow
@pytest.mark.parametrize("wait_seconds", [0.1, 3.0], ids=["workers that start", "workers that train"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_sigterm_is_what_ctrl_c_is(tmp_path: Path, number: signal.Signals, wait_seconds: float) -> None:
    """A terminal, and many a scheduler, sends them to all processes of a command at once."""
    run = tmp_path / "run"
    arguments = ["imp", "--output", str(run), *SETTINGS, "--steps=100000", "--replicates=2", "--workers=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 60
        while len(children.read_text().split()) < 3 and time.monotonic() < end:  # two workers, and who counts locks
            time.sleep(0.005)
        time.sleep(wait_seconds)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("lottery-tickets: interrupted; the same command goes on: trainings that")
    assert not run.exists(), "nothing was trained, so nothing is left"


def test_signals_are_handled_as_before_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["verify", str(tmp_path)]) == 2
    assert signal.getsignal(signal.SIGTERM) == before


# --------------------------------------------------------------------------- what stays, and where nobody reads on


def start(*words: str, **options: Any) -> "subprocess.Popen[str]":  # noqa: ANN401 - as Popen's
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("PYTHONUNBUFFERED", None)  # so that what is written last is written when Python ends
    return subprocess.Popen([*COMMAND, *words], text=True, env=environment, stderr=subprocess.PIPE, **options)


def interrupt_when(process: "subprocess.Popen[str]", is_time: Callable[[], object]) -> str:
    """Sends what Ctrl-C sends, once it is time; returns the last line."""
    end = time.monotonic() + 60
    while not is_time() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None, "it must still run"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


def open_if_read(pipe: Path, writers: list[int]) -> bool:
    """Opens a named pipe, and adds it to the writers, where somebody reads it by now; returns whether there is one."""
    with contextlib.suppress(OSError):
        writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    return bool(writers)


def test_ctrl_c_says_what_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start("imp", "--output", str(run), *SETTINGS, "--steps=100000", stdout=subprocess.DEVNULL) as process:
        said = interrupt_when(process, (run / "run.json").exists)
    assert said == (
        "lottery-tickets: interrupted; the same command goes on: trainings that are finished stay, those that were cut "
        "off begin anew"
    )


def test_ctrl_c_says_what_begins_anew(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "text")  # which the command waits for
    folder = save_tiny_llama(tmp_path / "model")
    opened = tmp_path / "opened"
    words = ["--language-model", str(folder), "--text", str(tmp_path / "text"), "--method=magnitude"]
    with start("score", "--output", str(opened), *words, stdout=subprocess.DEVNULL) as process:
        writers: list[int] = []
        said = interrupt_when(process, lambda: open_if_read(tmp_path / "text", writers))
        os.close(writers[0])
    assert said == "lottery-tickets: interrupted; nothing is kept; the same command begins anew"
    assert not opened.exists()


def test_each_command_says_what_an_interrupt_leaves() -> None:
    def describe(*words: str) -> str:
        return cli._describe_kept(cli._parse(words))

    assert describe("evaluate", "--output", "e", "--mask=m") == cli.BEGINS_ANEW
    assert "trainings that are finished stay" in describe("evaluate", "--output", "e", "--mask=m", "--start=s")
    assert describe("connectivity", "--output", "c", "--checkpoints", "a", "b") == cli.BEGINS_ANEW
    assert "lines are measured anew" in describe("connectivity", "--output", "c", "--rewind-steps", "0")
    assert "from the last check" in describe("early-bird", "--output", "b")
    assert "analyses that are finished stay" in describe("analyze", "--output", "a")
    assert "begin anew" in describe("demo")
    assert [describe(*words) for words in (["verify", "run"], ["compare", "a"], ["report", "a"])] == [
        cli.BEGINS_ANEW
    ] * 3


@pytest.mark.parametrize("words", [["mask", "show"], ["--help"]])
def test_who_stops_reading_is_told_nothing(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "mask.safetensors"
    Mask.from_tensors({f"layer{number}.weight": torch.eye(2) for number in range(5000)}).save(path)
    reader, writer = os.pipe()
    os.close(reader)
    with start(*words, *([str(path)] if words[0] == "mask" else []), stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate(timeout=60)
    assert said == ""
    assert process.returncode in {0, 141}


def test_output_on_a_full_disk_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    Mask.from_tensors({"w": torch.eye(2)}).save(path)
    with Path("/dev/full").open("w") as full, start("mask", "show", str(path), stdout=full) as process:
        _, said = process.communicate(timeout=60)
    assert said == ("lottery-tickets: No space left on device; make room and run the same command again\n")
    assert process.returncode == 2

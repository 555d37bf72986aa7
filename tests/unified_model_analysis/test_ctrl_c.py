"""What Ctrl-C says of each command: what stays, and what begins anew."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.models import save_tiny_llama
from tests.unified_model_analysis.test_broken_pipes import start
from tests.unified_model_analysis.test_interruptions import SETTINGS
from unified_model_analysis import cli


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

"""What a command does when the disk is full or read-only, or a scheduler ends it: one sentence, no half file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lottery_tickets._core.files import ASIDE
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
@pytest.mark.parametrize(
    ("number", "wait_seconds"),
    [
        pytest.param(signal.SIGTERM, 0.1, id="SIGTERM, workers that start"),
        pytest.param(signal.SIGINT, 3.0, id="Ctrl-C, workers that train"),
        pytest.param(signal.SIGTERM, 3.0, id="SIGTERM, workers that train", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 0.1, id="Ctrl-C, workers that start", marks=pytest.mark.long),
    ],
)
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

"""What all commands that write say when the disk is full, and what they leave."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lottery_tickets._core.files import ASIDE
from tests.unified_model_analysis.commands.every_command import (
    COMMANDS,
    OF_FILES,
    forget_times,
    make_words,
    read_files,
)
from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that has no room left, with an empty folder."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    try:
        (tmp_path / "out").mkdir()
        with (tmp_path / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield tmp_path / "out"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


ROOMS = (0, 20_000, 80_000, 250_000)  # bytes


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_said_and_nothing_is_half_written(
    name: str, full_disk: Path, given: Path, capsys: Output
) -> None:
    """Each time there is more room, and what the time before has left."""
    ballast, force = full_disk.parent / "ballast", ["--force"] if name in OF_FILES else []
    full = ballast.stat().st_size
    for num_bytes in ROOMS:
        os.truncate(ballast, full - num_bytes)
        words = [*make_words(name, given, full_disk), *(force if num_bytes else [])]
        code, said = main(words), capsys.readouterr().err.splitlines()
        assert [path for path in full_disk.rglob("*") if path.name.endswith(ASIDE)] == []
        if num_bytes and code == 0:
            break
        assert code == 2
        assert "No space left on device at " in said[-1]
        assert said[-1].endswith("; make room and run the same command again")
        assert "Traceback" not in "".join(said)
        if num_bytes == 0:
            assert list(full_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=40m", full_disk.parent], check=True)
    whole = given.parent / f"whole-{name}"
    for out in [full_disk, whole]:
        assert main([*make_words(name, given, out), *force]) == 0
    assert forget_times(read_files(full_disk)) == forget_times(read_files(whole))

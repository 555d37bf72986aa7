"""The two commands of a fresh clone, timed: `make demo` and `make test`, each where nothing is installed.

Each in a clone of its own of the present commit, with an empty cache of pip's, so installation and downloads are in
its time; how much of it stands beside it. Where pip is to look is taken from the environment (PIP_FIND_LINKS, ...).
Run by `python -m benchmarks.speed.fresh_clone` on a quiet machine, some ten minutes; writes
benchmarks/results/fresh_clone.json.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.common import ROOT, find_commit, write_results

COMMANDS: Final = ("make demo", "make test")
INSTALLED: Final = ".venv/.installed"  # touched by the Makefile when all is there
LAST_LINES: Final = 15
FOREIGN: Final = ("PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS")  # what a newcomer's shell has not


def time_command(command: str, folder: Path) -> dict[str, Any]:
    """Returns the seconds of one command in a clone of its own, and of installing in it.

    Args:
        command: As README has it.
        folder: An empty one.
    """
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)  # noqa: S603, S607 - fixed words
    assert not (clone / ".venv").exists()
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment |= {"PIP_CACHE_DIR": str(folder / "cache")}
    begun, start = time.time(), time.perf_counter()
    done = subprocess.run(command.split(), cwd=clone, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - as above
    seconds = time.perf_counter() - start
    print(f"{command}: {seconds:.0f} seconds", *done.stdout.splitlines()[-LAST_LINES:], sep="\n")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    installing = (clone / INSTALLED).stat().st_mtime - begun
    return {"command": command, "seconds": seconds, "of_it_installing": installing, "commit": find_commit(clone)}


def main() -> None:
    """Times the commands, one after the other, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=COMMANDS)
    figures = []
    for command in parser.parse_args().commands:
        with tempfile.TemporaryDirectory() as folder:
            figures.append(time_command(command, Path(folder)))
    write_results("fresh-clone", {"commands": figures})


if __name__ == "__main__":
    main()

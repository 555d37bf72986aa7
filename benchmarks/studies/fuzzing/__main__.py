"""Files that we read, changed 2,000 times each, in this checkout and in another where one is named."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.common import ROOT, find_commit, read_results, write_results
from benchmarks.studies.fuzzing.kinds import KINDS
from benchmarks.studies.fuzzing.outcomes import Outcomes, fuzz, fuzz_command

NUM_FILES: Final = 2000
NUM_COMMANDS: Final = 50
PLACE: Final = Path("/dev/shm")  # noqa: S108 - in memory, because files are written 2,000 times


def count(num_files: int, num_commands: int, names: list[str], *, is_telling: bool = False) -> dict[str, Any]:
    """Returns by kind what became of changed files, through Python and through the command line."""
    counts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=PLACE if PLACE.is_dir() else None) as folder:
        for name in names or KINDS:
            kind, begun = KINDS[name], time.perf_counter()
            found = fuzz(kind, Path(folder) / "fuzzed", num_files)
            shell = fuzz_command(kind, Path(folder) / "fuzzed", num_commands) if kind.command else None
            seconds = round(time.perf_counter() - begun, 1)
            counts[name] = {
                "files": num_files,
                "python": found.to_json(),
                "shell": None if shell is None else shell.to_json(),
                "seconds": seconds,
            }
            print(_tell(name, counts[name], [found, *([shell] if shell else [])], is_telling), file=sys.stderr)
    return counts


def _tell(name: str, row: dict[str, Any], found: list[Outcomes], is_telling: bool) -> str:  # noqa: FBT001 - one caller
    lines = [f"{name}: {row['seconds']} s; {row['python']}; {row['shell']}"]
    examples = (f"    {label}: {text}" for outcomes in found for label, text in outcomes.examples.items())
    return "\n".join([*lines, *(examples if is_telling else ())])


def main() -> None:
    """Counts here and elsewhere, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", help="the src folder of another checkout")
    parser.add_argument("--print", action="store_true", help="count here, and print the counts as JSON")
    parser.add_argument("--tell", action="store_true", help="count here, and show an example of each kind of failure")
    parser.add_argument("--files", type=int, default=NUM_FILES)
    parser.add_argument("--commands", type=int, default=NUM_COMMANDS)
    parser.add_argument("--kinds", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    here = count(given.files, given.commands, given.kinds, is_telling=given.tell)
    if given.print:
        print(json.dumps(here))
        return
    if given.tell:
        return
    earlier = read_results("fuzzing")  # counts of before stay, and of now those of other kinds
    figures: dict[str, Any] = {name: earlier[name] for name in ("before", "before_commit") if name in earlier}
    figures["this"] = {**(earlier["this"] if given.kinds else {}), **here}
    if given.other is not None:
        environment = {**os.environ, "PYTHONPATH": f"{Path(given.other).resolve()}:{ROOT}"}
        words = ["--print", "--files", str(given.files), "--commands", str(given.commands)]
        command = [sys.executable, "-m", "benchmarks.studies.fuzzing", *words, "--kinds", *given.kinds]
        found = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - ours
        there = json.loads(found.stdout.splitlines()[-1])
        figures["before"] = {**(earlier["before"] if given.kinds else {}), **there}
        figures["before_commit"] = find_commit(Path(given.other))
    write_results("fuzzing", figures)


if __name__ == "__main__":
    main()

"""How long a report takes, from results on disk to PDF, page, figures and tables; how large its page is.

Reports on the demo's run folder, and on 200 results, the demo's under 200 names. Each is made in a process of its own,
as the command makes it, from the first import on; the demo's several times, in time zones at opposite ends of the
world, and each time the same bytes must come out.

`OMP_NUM_THREADS=1 python -m benchmarks.speed.reports` takes three minutes. The figures go to
benchmarks/results/reports.json.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.common import ROOT, write_results
from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from unified_model_analysis.commands.demo import Demo

NUM_MANY: Final = 200
REPEATS: Final = 5
GOALS: Final = {"demo": 5.0, "many": 30.0}  # seconds
MOST_BYTES: Final = 3_000_000  # of the demo's page
ZONES: Final = ("Pacific/Kiritimati", "Etc/GMT+12")


def make(run: Path, output: Path, num: int) -> None:
    """Makes a report of a run folder, under as many names as are asked for."""
    generator = StatisticalReportGenerator(ReportConfig(output_dir=output, moment="end", margin=0.01))
    for number in range(num):
        generator.add_results(run, f"run {number}")
    generator.generate_report()


def measure(run: Path, place: Path, num: int, repeats: int) -> dict[str, Any]:
    """Returns seconds, sizes and the digest of reports of one kind, which all must be the same."""
    seconds, digests = [], []
    outputs = [place / f"{num}-{number}" for number in range(repeats)]
    for number, output in enumerate(outputs):
        command = [sys.executable, "-m", "benchmarks.speed.reports", str(run), str(output), str(num)]
        environment = {**os.environ, "TZ": ZONES[number % len(ZONES)]}
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True)  # noqa: S603 - ourselves
        seconds.append(time.perf_counter() - start)
        digests.append(digest(output))
    assert len(set(digests)) == 1, "two reports of the same results differ"
    return {
        "num_results": num,
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "num_builds": repeats,
        "bytes": {suffix: (outputs[0] / f"report.{suffix}").stat().st_size for suffix in ("html", "pdf")},
        "num_files": sum(path.is_file() for path in outputs[0].rglob("*")),
        "sha256": digests[0],
    }


def digest(folder: Path) -> str:
    """Returns the digest of all files of a folder, with their names."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(json.dumps([str(path.relative_to(folder)), path.stat().st_size]).encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def main() -> None:
    """Measures and writes the figures."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if len(sys.argv) > 1:  # a demo's run folder that is there already
            run = Path(sys.argv[1])
        else:
            run = place / "demo"
            assert Demo(output=run).run() == 0
        figures = {
            "demo": measure(run, place / "demo-reports", 1, REPEATS),
            "many": measure(run, place / "many-reports", NUM_MANY, 2),
        }
    for name, goal in GOALS.items():
        figures[name]["goal_seconds"] = goal
        print(f"{name}: {figures[name]['median_seconds']:.1f} s (goal {goal:g}), {figures[name]['bytes']}")
    assert figures["demo"]["bytes"]["html"] <= MOST_BYTES
    write_results("reports", {"goal_bytes": MOST_BYTES, "zones": ZONES, **figures})


if __name__ == "__main__":
    if len(sys.argv) > 2:  # noqa: PLR2004 - a run folder, the output and a number
        make(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()

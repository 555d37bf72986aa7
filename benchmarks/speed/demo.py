"""The demo, timed: what `make demo` shows and how long it takes after installation.

Run by `python -m benchmarks.speed.demo`; writes benchmarks/results/demo.json and docs/figures/demo.svg.
"""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import FIGURES, write_results
from lottery_tickets import load_results
from statistical_report_generator.inference.intervals import summarise_experiment
from unified_model_analysis.commands.demo import Demo


def main() -> None:
    """Runs the demo in a new folder and writes its seconds and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        demo = Demo(output=Path(folder) / "demo")
        assert demo.run() == 0
        seconds = time.perf_counter() - start
        results = load_results(demo.output / "results.json")
        picture = demo.output.with_name("demo-report") / "report-files" / "demo-accuracy.svg"
        (FIGURES / "demo.svg").write_bytes(picture.read_bytes())
        findings = load_results(demo.output / "summary.json")["findings"]
    summaries = [asdict(summary) for summary in summarise_experiment(results, moment="end")]
    write_results("demo", {"seconds": seconds, "findings": findings, "summaries": summaries, "plan": results["plan"]})
    print(f"{seconds:.0f} seconds")


if __name__ == "__main__":
    main()

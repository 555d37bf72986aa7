"""The LeNet-300-100 experiment of Frankle & Carbin 2019 (arXiv 1803.03635) on Fashion-MNIST, with controls.

Adam 1.2e-3, batches of 60, 5,000 validation images, evaluation every 100 steps, 20 % of the survivors pruned a round
(output layer 10 %), rewinding to step 0. The paper trains 50,000 steps on MNIST; here it is `STEPS` on Fashion-MNIST.
It takes about an hour and a half of processor time, goes on where it was stopped, and is run by
`python -m benchmarks.studies.fashion_lenet [RUN_FOLDER]`. It writes benchmarks/results/fashion_lenet.json and
docs/figures/fashion_lenet.png.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import FIGURES, write_results
from lottery_tickets import load_results
from lottery_tickets.experiments.verification import verify_run
from statistical_report_generator.figures.experiment import draw_accuracy_over_density
from statistical_report_generator.figures.style import save_figure
from statistical_report_generator.inference.intervals import summarise_experiment
from unified_model_analysis.commands.imp import Imp

STEPS = 12_000
REPLICATES = 4
LEVELS = 15
CONTROL_LEVELS = (5, 7, 9, 12, 15)  # 33, 21, 14, 7 and 4 % of the weights


def main() -> None:
    """Runs or continues the experiment, verifies it from its files and writes figures and results."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fashion_lenet")
    experiment = Imp(
        output=run, data="fashion-mnist", levels=LEVELS, controls=CONTROL_LEVELS, replicates=REPLICATES, steps=STEPS
    )
    experiment.run()
    checks = verify_run(run)
    failed = [asdict(check) for check in checks if check.problem]
    assert not failed, failed
    results = load_results(run / "results.json")
    summaries = {moment: summarise_experiment(results, moment=moment) for moment in ("early_stop", "end")}
    title = f"LeNet-300-100 on Fashion-MNIST, {STEPS:,} steps, accuracy at early stop"
    save_figure(draw_accuracy_over_density(summaries["early_stop"], title), FIGURES / "fashion_lenet.png")
    write_results(
        "fashion_lenet",
        {
            "plan": results["plan"],
            "versions_of_the_run": results["versions"],
            "checks_held": len(checks),
            "summaries": {moment: [asdict(s) for s in found] for moment, found in summaries.items()},
            "trainings": [without_curve(row) for row in results["trainings"]],
        },
    )


def without_curve(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a training's row without its validation curve, which is long."""
    history = {name: figures for name, figures in row["history"].items() if name != "curve"}
    return {**row, "history": history}


if __name__ == "__main__":
    main()

"""`lottery-tickets demo`: a winning ticket on real data in under three minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_model_analysis.commands.imp import Imp
from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.options import SEED


@dataclass(frozen=True)
class Demo:
    """Find a winning ticket of LeNet-300-100 on the handwritten digits that come with scikit-learn, and check it.

    Prunes to about 4 % of the weights in 15 rounds, with 10 replicates and three controls on equal budget, says in
    words what was found and what was not, verifies the run from its files, and writes a report beside it. One point of
    accuracy, five of the 539 test images, counts as no loss.

    Example: `lottery-tickets demo --output runs/demo`

    Attributes:
        output: Where the experiment lives. Run again, a finished one is only shown. The report lies beside it, in
            OUTPUT-report.
        seed: Names the experiment.
    """

    output: Path = Path("runs/demo")
    seed: int = SEED

    def run(self) -> int:
        """Runs the experiment and verifies it; returns the exit code."""
        from unified_model_analysis.commands.report import Report

        check_report_extra(pages=True)
        place = self.output.resolve()
        judged: dict[str, Any] = {"moment": "end", "margin": 1.0}
        imp = Imp(output=self.output, levels=15, controls=(12, 15), replicates=10, seed=self.seed, **judged)
        beside = place.with_name(f"{place.name}-report")
        report = Report((self.output,), output=beside, force=True, verify=True, **judged)
        return imp.run() or report.run()

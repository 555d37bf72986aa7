"""`lottery-tickets demo`: a winning ticket on real data in under three minutes."""

from dataclasses import dataclass
from pathlib import Path

from unified_model_analysis.commands.imp import Imp


@dataclass(frozen=True)
class Demo:
    """Find a winning ticket of LeNet-300-100 on the handwritten digits that come with scikit-learn, and check it.

    Prunes to about 4 % of the weights in 15 rounds, with 10 replicates and three controls on equal budget, says in
    words what was found and what was not, and verifies the run from its files. One point of accuracy, five of the 539
    test images, counts as no loss.

    Attributes:
        run_folder: Where the experiment lives. Run again, a finished one is only shown.
        seed: Names the experiment.
    """

    run_folder: Path = Path("runs/demo")
    seed: int = 0

    def run(self) -> int:
        """Runs the experiment and verifies it; returns the exit code."""
        from unified_model_analysis.commands.verify import Verify

        imp = Imp(
            self.run_folder, levels=15, controls=(12, 15), replicates=10, moment="end", margin=1.0, seed=self.seed
        )
        return imp.run() or Verify(self.run_folder).run()

"""`lottery-tickets verify`: re-check a run from its files alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Verify:
    """Re-check a run from its files alone: hashes, plan, versions, seeds, masks, counts, rewound weights.

    Masks are computed again from the stored weights, starting weights from the stored theta_k; pruned weights must be
    zero in every checkpoint. Exit code 1 when anything fails.

    Attributes:
        run_folder: The folder that `imp` or `demo` made.
        show_all: Also list the checks that hold.
    """

    run_folder: Annotated[Path, tyro.conf.Positional]
    show_all: bool = False

    def run(self) -> int:
        """Prints what was checked; returns 0 when all holds, else 1."""
        from lottery_tickets.experiments.verification import verify_run

        checks = verify_run(self.run_folder)
        failed = [check for check in checks if check.problem]
        for check in checks if self.show_all else failed:
            label = f"{check.where}: {check.name}"
            print(f"FAILED  {label}: {check.problem}" if check.problem else f"ok      {label}")
        verdict = "the run is what it says" if not failed else "do not trust this run"
        print(f"{self.run_folder}: {len(checks) - len(failed)} of {len(checks)} checks hold; {verdict}")
        return 1 if failed else 0

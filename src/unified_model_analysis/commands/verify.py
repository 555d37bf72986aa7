"""`lottery-tickets verify`: re-check a run from its files, and by measuring its checkpoints again."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.summary_checks import check_summary
from unified_model_analysis.terminal import say
from unified_model_analysis.workload_pairs import list_runs

if TYPE_CHECKING:
    from lottery_tickets.experiments.verification import Check


@dataclass(frozen=True)
class Verify:
    """Re-check a run from its files: hashes, plan, versions, seeds, masks, counts, weights, histories, summary.

    Masks are computed again from the stored weights, starting weights from the stored theta_k; pruned weights must be
    zero in every checkpoint; nothing may lie there that does not belong to the run. Says what that shows and what it
    leaves open. Exit code 1 when anything fails. See docs/reliability.md.

    Example: `lottery-tickets verify runs/digits --re-evaluate`

    Attributes:
        run_folder: The folder that `imp`, `demo` or `evaluate --start` made, or the results of `connectivity`, whose
            trainings are checked step by step.
        re_evaluate: Also load every checkpoint, measure it again on the recorded data, and draw fresh weights again.
        train_again: Also measure all and train so many, drawn at random, again; they must end in the same bits.
        folder: Folder of the IDX files, where the run has its data from such; only to re-evaluate.
        device: Where to re-evaluate; the device that trained when not given.
        show_all: Also list the checks that hold.
    """

    run_folder: Annotated[Path, tyro.conf.Positional]
    re_evaluate: bool = False
    train_again: int = 0
    folder: Path | None = None
    device: str | None = None
    show_all: bool = False

    def run(self) -> int:
        """Prints what was checked; returns the exit code."""
        runs = list_runs(self.run_folder)
        code = max(map(self._check_run, runs))
        if runs != [self.run_folder]:
            print(f"{self.run_folder}: its lines are not measured again here, but by `connectivity`")
        return code

    def _check_run(self, run: Path) -> int:
        failed = any(check.problem for check in self.check_run(run))
        return ExitCode.CHECK_FAILED if failed else ExitCode.DONE

    def check_run(self, run: Path) -> "list[Check]":
        """Returns the checks of one run folder, and prints what they show.

        Args:
            run: The folder.
        """
        from lottery_tickets.experiments.verification import create_workload_subject, describe_scope, verify_run

        subject, is_measured = None, self.re_evaluate or self.train_again > 0
        if is_measured:
            subject = create_workload_subject(run, folder=self.folder, device=self.device)
        checks = verify_run(run, subject, num_trained_again=self.train_again, progress=True)
        checks += check_summary(run)
        failed = [check for check in checks if check.problem]
        verdict = "no contradiction was found" if not failed else "do not trust this run"
        say(f"{run}: {len(checks) - len(failed)} of {len(checks)} checks hold; {verdict}")
        for check in checks if self.show_all else failed:
            label = f"{check.where}: {check.name}"
            say(f"FAILED  {label}: {check.problem}" if check.problem else f"ok      {label}")
        if not failed:
            say(*describe_scope(run, checks, is_measured=is_measured))
        return checks

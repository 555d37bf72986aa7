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
    from lottery_tickets.experiments.subjects import Subject
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
        source: "module:function": the network of one's own that the run was made with, to re-evaluate it; it takes the
            starting weights that the run keeps. See `lottery-tickets imp --help`.
        learning_rate: Of Adam, where the run of a network of one's own was made with another than 0.001, which it is
            when not given.
        folder: Folder of the IDX files, where the run has its data from such; only to re-evaluate.
        device: Where to re-evaluate; the device that trained when not given.
        show_all: Also list the checks that hold.
    """

    run_folder: Annotated[Path, tyro.conf.Positional]
    re_evaluate: bool = False
    train_again: int = 0
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    learning_rate: float | None = None
    folder: Path | None = None
    device: str | None = None
    show_all: bool = False

    def run(self) -> int:
        """Prints what was checked; returns the exit code."""
        if self.source is not None and not self.re_evaluate and not self.train_again:
            raise ValueError("--from is what is measured again; say --re-evaluate or --train-again too")
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
        from lottery_tickets.experiments.verification import describe_scope, verify_run

        is_measured = self.re_evaluate or self.train_again > 0
        subject = self._make_subject(run) if is_measured else None
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

    def _make_subject(self, run: Path) -> "Subject":
        """Returns what the run was made with, once more."""
        from lottery_tickets.experiments.verification import create_caller_subject, create_workload_subject
        from unified_model_analysis.networks import load_own
        from unified_model_analysis.own_networks import LEARNING_RATE

        if self.source is None:
            return create_workload_subject(run, folder=self.folder, device=self.device)
        loaded = load_own(self)
        return create_caller_subject(
            run,
            loaded.network.to(self.device or "cpu"),
            loaded.batches,
            trainer_fn=loaded.trainer_fn,
            evaluation_dataloader=loaded.test_batches,
            loss_fn=loaded.loss_fn,
            learning_rate=LEARNING_RATE if self.learning_rate is None else self.learning_rate,
            use_recorded_start=True,
        )

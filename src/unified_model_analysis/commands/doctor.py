"""`lottery-tickets doctor`: does this installation do what it must, on this machine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets.doctor import Finding


@dataclass(frozen=True)
class Doctor:
    """Check this installation on this machine: versions, devices, dtypes, kernels, a small ticket, memory, disk.

    All kernels must agree bit for bit, on a GPU too where there is one. Says what failed and what to do, and ends with
    what to paste into a report of a bug, which names neither you nor your machine. Exit code 1 when a check failed.
    Takes some 5 seconds; the first time longer, because loops are compiled.

    Example: `lottery-tickets doctor`
    """

    def run(self) -> int:
        """Prints what was found; returns 0 when all is well, else 1."""
        from lottery_tickets.doctor import check_installation, describe_findings

        findings = check_installation(_tell)
        failed = [finding for finding in findings if finding.problem]
        num_held = len(findings) - len(failed)
        say(f"{num_held} of {len(findings)} checks hold" + ("" if failed else "; this installation does what it must"))
        print("\nTo paste into a report of a bug:\n")
        print(f"```text\n{describe_findings(findings)}\n```")
        return ExitCode.CHECK_FAILED if failed else ExitCode.DONE


def _tell(finding: "Finding") -> None:
    if finding.problem:
        say(f"FAILED  {finding.name}: {finding.problem}")
    else:
        say(f"ok      {finding.name}: {finding.found}")
    if finding.advice:
        say(f"        {'what to do' if finding.problem else 'note'}: {finding.advice}")

"""`lottery-tickets doctor`: does this installation do what it must, on this machine."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets.doctor import Finding

PATIENCE_SECONDS: Final = 2.0  # of a user, before she is told what is being done
MEANWHILE: Final = "still at it; the first time loops are compiled, which takes some 10 seconds"


@dataclass(frozen=True)
class Doctor:
    """Check this installation on this machine: versions, devices, dtypes, kernels, a small ticket, memory, disk.

    All kernels must agree bit for bit, on a GPU too where there is one. Says what failed and what to do, and ends with
    what to paste into a report of a bug, which names neither you nor your machine. Exit code 1 when a check failed.
    Takes some 7 seconds; the first time longer, because loops are compiled. Measures how fast this machine is, too, and
    keeps that in your cache folder, where `lottery-tickets plan` finds it to say how long an analysis takes.

    Example: `lottery-tickets doctor`
    """

    def run(self) -> int:
        """Prints what was found; returns 0 when all is well, else 1."""
        from lottery_tickets.doctor import check_installation, describe_findings

        watch = _Watch()
        findings = check_installation(watch.end, begin=watch.begin)
        failed = [finding for finding in findings if finding.problem]
        num_held = len(findings) - len(failed)
        say(f"{num_held} of {len(findings)} checks hold" + ("" if failed else "; this installation does what it must"))
        print("\nTo paste into a report of a bug:\n")
        print(f"```text\n{describe_findings(findings)}\n```")
        return ExitCode.CHECK_FAILED if failed else ExitCode.DONE


class _Watch:
    """Says what is being checked where that takes long, and then what was found."""

    def __init__(self) -> None:
        self._timer = threading.Timer(0, say)

    def begin(self, name: str) -> None:
        self._timer = threading.Timer(PATIENCE_SECONDS, say, [f"...     {name}: {MEANWHILE}"])
        self._timer.daemon = True
        self._timer.start()

    def end(self, finding: "Finding") -> None:
        self._timer.cancel()
        self._timer.join()
        _tell(finding)


def _tell(finding: "Finding") -> None:
    if finding.problem:
        say(f"FAILED  {finding.name}: {finding.problem}")
    else:
        say(f"ok      {finding.name}: {finding.found}")
    if finding.advice:
        say(f"        {'what to do' if finding.problem else 'note'}: {finding.advice}")

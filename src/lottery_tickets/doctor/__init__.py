"""Does an installation do what it must, on this machine."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.doctor.checking import Finding
from lottery_tickets.doctor.installation import check_installation, describe_findings

__all__ = ["Finding", "check_installation", "describe_findings"]
__dir__ = show_only(__all__)

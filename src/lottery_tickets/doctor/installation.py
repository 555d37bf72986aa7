"""All checks of an installation, and what of them is pasted into a report."""

import getpass
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from lottery_tickets.doctor.checking import Finding, examine
from lottery_tickets.doctor.kernels import ADVICE, list_kernel_checks
from lottery_tickets.doctor.machine import (
    list_devices,
    look_at_device,
    look_at_disk,
    look_at_extras,
    look_at_memory,
    look_at_processor,
    look_at_versions,
)
from lottery_tickets.doctor.small_ticket import ADVICE as TICKET_ADVICE
from lottery_tickets.doctor.small_ticket import FOLDER_ADVICE, check_small_ticket

SHORTEST_NAME: Final = 3  # of a user or a machine that is taken out: shorter ones are parts of words
REINSTALL: Final = "install the package again: python -m pip install --force-reinstall lottery-tickets"
DEVICE_ADVICE: Final = "install a build of torch for this device and its driver"


def check_installation(tell: Callable[[Finding], object] | None = None) -> list[Finding]:
    """Returns what was found of this installation on this machine: versions, devices, kernels, a ticket, room.

    Each kernel, on each device, must give the bits of the plain reference on the CPU: for all dtypes, sizes with tails,
    equal magnitudes, NaN. A small ticket is trained, pruned, rewound, verified, saved, loaded and used in a temporary
    folder. What fails keeps nothing else from being checked. Takes some 4 seconds, 15 the first time, when loops are
    compiled.

    Args:
        tell: Told each finding when it is there.

    Returns:
        Findings; those with a `problem` failed.

    Examples:
        >>> from lottery_tickets.doctor import check_installation
        >>> [finding.name for finding in check_installation() if finding.problem]
        []
    """
    findings = []
    for name, look, advice in _list_checks():
        finding = examine(name, look, advice)
        findings.append(finding)
        if tell is not None:
            tell(finding)
    return findings


def describe_findings(findings: Sequence[Finding]) -> str:
    """Returns findings as text for a bug report, without the names of user and machine and the home folder.

    Args:
        findings: Of `check_installation`.

    Examples:
        >>> print(describe_findings([Finding("memory", "21.5 GB available"), Finding("masks", "", "differ")]))
        memory: 21.5 GB available
        FAILED masks: differ
    """
    lines = [
        f"FAILED {finding.name}: {finding.problem}" if finding.problem else f"{finding.name}: {finding.found}"
        for finding in findings
    ]
    return _take_names_out("\n".join(lines))


def _list_checks() -> Iterator[tuple[str, Callable[[], Finding | str], str]]:
    """Yields the name of each check, what runs it, and what to do when it raises anything."""
    devices = list_devices()
    yield "versions", look_at_versions, REINSTALL
    yield "extras", look_at_extras, REINSTALL
    yield "processor", look_at_processor, ""
    yield "memory", look_at_memory, ""
    yield "disk", partial(look_at_disk, Path.cwd()), FOLDER_ADVICE
    for device in devices:
        yield f"device {device}", partial(look_at_device, device), DEVICE_ADVICE
    for device in devices:
        for name, compare in list_kernel_checks(device):
            yield name, compare, ADVICE
    for device in devices:
        yield f"a ticket on {device}", partial(check_small_ticket, device), TICKET_ADVICE


def _take_names_out(text: str) -> str:
    text = text.replace(str(Path.home()), "~")
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        user = ""
    for name, instead in ((user, "USER"), (platform.node(), "HOST")):
        if len(name) >= SHORTEST_NAME:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, text)
    return text

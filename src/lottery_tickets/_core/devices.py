"""Devices that compute, and the memory that they have left."""

import re
from pathlib import Path
from typing import Final

import torch

MEMORY: Final = Path("/proc/meminfo")
GROUPS: Final = Path("/sys/fs/cgroup")
CONTAINERS: Final = (  # limit, use, what the use consists of
    tuple(GROUPS / name for name in ("memory.max", "memory.current", "memory.stat")),
    tuple(GROUPS / "memory" / f"memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")),
)


def check_device(device: str) -> None:
    """Raises a ValueError when nothing can be computed on a device; returns nothing.

    Args:
        device: A name that torch knows, such as "cpu" or "cuda:1". "meta" has no values, so it computes nothing.

    Raises:
        ValueError: When torch does not know the device, or this machine does not have it.

    Examples:
        >>> check_device("cpu")
    """
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device must be one that computes on this machine, but got {device!r}; 'cpu' always does"
        ) from error


def find_free_bytes(device: str | torch.device = "cpu", *, with_swap: bool = False) -> int | None:
    """Returns how much memory this process can still get on a device; None where that is not known.

    Of a GPU what the driver has free, and what torch keeps of it without using it. Of the CPU what the system calls
    available, within the limit of the container.

    Args:
        device: The CPU or a CUDA device.
        with_swap: Whether what the system can put aside counts too.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    found = [given for given in (_read_available(with_swap=with_swap), _read_container_room()) if given is not None]
    return min(found, default=None)


def _read_available(*, with_swap: bool) -> int | None:
    try:
        fields = MEMORY.read_text(encoding="ascii")
    except OSError:  # of other systems than Linux
        return None
    found = dict(re.findall(r"^(MemAvailable|SwapFree):\s+(\d+) kB", fields, re.MULTILINE))
    if "MemAvailable" not in found:
        return None
    return 1024 * (int(found["MemAvailable"]) + with_swap * int(found.get("SwapFree", 0)))


def _read_container_room() -> int | None:
    """Returns what is left of the limit of the control group, versions 2 and 1; None where there is none."""
    for limit, used, kept in CONTAINERS:
        try:
            most, now = int(limit.read_text(encoding="ascii")), int(used.read_text(encoding="ascii"))
            stat = kept.read_text(encoding="ascii")
        except (OSError, ValueError):  # no such group, or "max"
            continue
        cached = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)  # given back when it is asked for
        return max(0, most - now + (int(cached[1]) if cached else 0))
    return None

"""What a machine has: versions, devices, memory, disk, threads."""

import os
import platform
import re
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import torch

from lottery_tickets._core.devices import find_free_bytes
from lottery_tickets.doctor.checking import DoctorError, Finding

PACKAGE: Final = "lottery-tickets"
GB: Final = 1e9
LEAST_MEMORY_GB: Final = 1.0
LEAST_DISK_GB: Final = 1.0
REQUIREMENT: Final = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*\])?(?P<rules>[^;]*)(?:;.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?"
)
LEAST: Final = re.compile(r">=\s*([\d.]+)")
MISSING: Final = "not installed"
NO_EXTRAS: Final = ("dev", "docs")  # of those who work on the package
SIDE: Final = 64  # of the matrices that are multiplied
# The largest error of a product of rows and columns of length 64 with entries of some 1, several times what is usual.
TOLERANCES: Final = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 1.0, torch.float16: 0.1}


def look_at_versions() -> Finding:
    """Returns the versions of Python and of all that the package needs.

    Raises:
        DoctorError: When a package is missing or too old.
    """
    words, problems = [f"Python {platform.python_version()}", f"{PACKAGE} {version(PACKAGE)}"], []
    for requirement in map(REQUIREMENT.match, requires(PACKAGE) or ()):
        if requirement is None or requirement["extra"]:
            continue
        found = find_version(requirement["name"])
        words.append(f"{requirement['name']} {found}")
        if problem := _find_problem(requirement["name"], requirement["rules"], found):
            problems.append(problem)
    if problems:
        raise DoctorError("; ".join(problems), f"run: python -m pip install --upgrade {PACKAGE}")
    return Finding("", ", ".join(words))


def look_at_extras() -> Finding:
    """Returns which of the optional extras are there, with their versions, and what the others lack."""
    extras: dict[str, list[str]] = {}
    too_old = []
    for requirement in map(REQUIREMENT.match, requires(PACKAGE) or ()):
        if requirement is None or requirement["extra"] in {None, *NO_EXTRAS} or requirement["name"] == PACKAGE:
            continue
        name, found = requirement["name"], find_version(requirement["name"])
        extras.setdefault(requirement["extra"], []).append(f"{name} {found}")
        if found != MISSING and (problem := _find_problem(name, requirement["rules"], found)):
            too_old.append(f"{problem} for the extra {requirement['extra']}")
    found = "; ".join(f"{extra}: {', '.join(words)}" for extra, words in sorted(extras.items()))
    return Finding("", found, advice="; ".join(too_old))


def find_version(name: str) -> str:
    """Returns the version of an installed package, "not installed" of others."""
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING


def _find_problem(name: str, rules: str, found: str) -> str:
    if found == MISSING:
        return f"{name} is not installed"
    least = LEAST.search(rules)
    if least and _to_numbers(found) < _to_numbers(least[1]):
        return f"{name} must be {least[1]} or later, but is {found}"
    return ""


def _to_numbers(words: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", words.split("+", maxsplit=1)[0])[:3])


def look_at_processor() -> Finding:
    """Returns processors, threads and vector instructions, and what would make torch faster."""
    torch_threads, processors = torch.get_num_threads(), _count_processors()
    advice = ""
    if torch_threads == 1 < processors or torch_threads < processors // 2:  # half of them may be hyperthreads
        advice = f"torch uses {torch_threads} of {processors} processors; unset OMP_NUM_THREADS to use more"
    elif torch_threads > processors:
        advice = f"torch has more threads than there are processors; export OMP_NUM_THREADS={processors}"
    found = (
        f"{platform.system()} {platform.release()}, {platform.machine()}, {processors} processors for this process, "
        f"{torch_threads} torch threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    return Finding("", found, advice=advice)


def _count_processors() -> int:
    """Returns how many this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def look_at_memory() -> Finding:
    """Returns the memory that is available.

    Raises:
        DoctorError: When it is hardly any.
    """
    available = find_free_bytes()
    if available is None:
        return Finding("", "not known on this system")
    if available < LEAST_MEMORY_GB * GB:
        raise DoctorError(
            f"{available / GB:.1f} GB are available, and anything but the smallest models needs more",
            "end other programs, or take a machine with more memory",
        )
    return Finding("", f"{available / GB:.1f} GB available")


def look_at_disk(folder: Path) -> Finding:
    """Returns the room on the disk of a folder.

    Args:
        folder: Where runs are to be kept.

    Raises:
        DoctorError: When there is hardly any.
    """
    free, temporary = shutil.disk_usage(folder).free, shutil.disk_usage(tempfile.gettempdir()).free
    words = f"{free / GB:.1f} GB free in this folder, {temporary / GB:.1f} GB for temporary files"
    if min(free, temporary) < LEAST_DISK_GB * GB:
        raise DoctorError(
            words, "make room, work in another folder, or name one for temporary files: export TMPDIR=/path/to/folder"
        )
    return Finding("", words)


def list_devices() -> list[str]:
    """Returns the names of the devices of this machine that torch can use."""
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def look_at_device(device: str) -> Finding:
    """Returns what a device is called, its memory, and in which dtypes it multiplies.

    Args:
        device: Its name.

    Raises:
        DoctorError: When a product is wrong or cannot be computed.
    """
    generator, advice = torch.Generator().manual_seed(SIDE), ""
    first, second = (torch.randn(SIDE, SIDE, dtype=torch.float64, generator=generator) for _ in range(2))
    dtypes = []
    for dtype, tolerance in TOLERANCES.items():
        name = str(dtype).removeprefix("torch.")
        one, other = (matrix.to(dtype) for matrix in (first, second))
        error = float(((one.to(device) @ other.to(device)).cpu().double() - one.double() @ other.double()).abs().max())
        if not error <= tolerance:
            raise DoctorError(
                f"a {name} product on {device} is off by {error:.3g}, more than {tolerance:g}",
                "install a build of torch for this device and its driver; a device that computes wrong is of no use",
            )
        dtypes.append(name)
    if device == "cpu" and not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        advice = (
            f"there is an NVIDIA driver, but torch {torch.__version__} sees no GPU; install a build of torch with CUDA"
        )
    return Finding("", f"{_describe_device(device)}products right in {', '.join(dtypes)}", advice=advice)


def _describe_device(device: str) -> str:
    if not device.startswith("cuda"):
        return ""
    free, total = torch.cuda.mem_get_info(device)
    name, capability = torch.cuda.get_device_name(device), ".".join(map(str, torch.cuda.get_device_capability(device)))
    room = f"{free / GB:.1f} of {total / GB:.1f} GB free"
    return f"{name}, compute capability {capability}, CUDA {torch.version.cuda}, {room}; "

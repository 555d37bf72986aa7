"""What every benchmark shares: machine facts, interleaved timing, peak memory, JSON results."""

import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import torch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = ("torch", "numpy", "numba", "lottery-tickets")


class Timing(TypedDict):
    """Wall-clock seconds of repeated calls."""

    min_seconds: float
    median_seconds: float
    repeats: int


def measure(callables: dict[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Returns the timing of each callable, called in turns, so that a busy machine hurts all of them alike.

    Args:
        callables: By name. Each is called once before it is timed.
        repeats: How many timed calls of each.
    """
    for function in callables.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for _ in range(repeats):
        for name, function in callables.items():
            gc.collect()
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"min_seconds": min(times), "median_seconds": statistics.median(times), "repeats": repeats}
        for name, times in seconds.items()
    }


def measure_peak_extra_bytes(function: Callable[[], object]) -> int:
    """Returns by how much the resident memory of this process rises at most during a call (Linux: VmHWM over VmRSS).

    To be called in a process of its own, by `call_in_new_process`: what was freed before would be used again unseen.
    Warm up on a small input, so that compiled code and threads are there already.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the high-water mark to what is resident
    before = _status_bytes("VmRSS")
    function()
    return _status_bytes("VmHWM") - before


def call_in_new_process(script: str, *arguments: str) -> str:
    """Returns what a module of this package prints, run with an allocator that returns large blocks at once.

    Args:
        script: The module's `__file__`.
        arguments: What it is given.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    module = ".".join(Path(script).relative_to(ROOT).with_suffix("").parts)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours


def describe_machine() -> dict[str, Any]:
    """Returns what a reader needs to repeat or to doubt a figure: hardware, versions, commit, load."""
    return {
        "processor": _processor(),
        "num_cpus": os.cpu_count(),
        "num_torch_threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_results(name: str, payload: dict[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`, the payload with the machine beside it, and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"machine": describe_machine(), **payload}, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status must have {field}, but has not; memory is measured on Linux only")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    return found.stdout.strip() or "unknown"

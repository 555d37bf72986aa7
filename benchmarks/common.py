"""What every benchmark shares: titles, interleaved timing, peak memory, facts about the machine, JSON results."""

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
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from lottery_tickets.workloads import create_token_batches, load_smollm2, load_speeches
from statistical_report_generator.rows import format_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"
LIBRARIES = ("torch", "numpy", "numba", "lottery-tickets")
TITLES = {"lenet-300-100": "LeNet-300-100", "resnet-20": "ResNet-20", "smollm2-135m": "SmolLM2-135M"}


class Timing(TypedDict):
    """Wall-clock seconds of repeated calls."""

    min_seconds: float
    median_seconds: float
    repeats: int


def time_call(function: Callable[[], object], *, collect: bool = True) -> float:
    """Returns the wall-clock seconds of one call, to its end on a GPU where there is one.

    Args:
        function: What is called.
        collect: Whether to collect garbage before, which empties caches too: no good for calls of few milliseconds.
    """
    if collect:
        gc.collect()
    _wait()
    start = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def take_turns(
    callables: Mapping[str, Callable[[], object]], repeats: int, *, collect: bool = True
) -> dict[str, list[float]]:
    """Returns the seconds of each call, by name; all are called in turns, so that a busy machine hurts them alike.

    Args:
        callables: By name. Each is called once before it is timed.
        repeats: How many timed calls of each.
        collect: Whether to collect garbage before each.
    """
    for function in callables.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for _ in range(repeats):
        for name, function in callables.items():
            seconds[name].append(time_call(function, collect=collect))
    return seconds


def measure(callables: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Returns the least and the median seconds of each, called as by `take_turns`."""
    return {
        name: {"min_seconds": min(times), "median_seconds": statistics.median(times), "repeats": repeats}
        for name, times in take_turns(callables, repeats).items()
    }


def show_timings(timings: Mapping[str, Timing]) -> None:
    """Prints the milliseconds of each."""
    rows = [
        (name, f"{1e3 * timing['min_seconds']:.2f}", f"{1e3 * timing['median_seconds']:.2f}")
        for name, timing in timings.items()
    ]
    print(format_rows([("", "min, ms", "median, ms"), *rows], align="<>>"))


def load_language(
    *, batch_size: int, num_tokens: int, num_batches: int, split: str = "train"
) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Returns SmolLM2-135M and batches of State-of-the-Union speeches, of the "train" or the "test" split."""
    model, tokenizer = load_smollm2()
    texts = getattr(load_speeches(), split)
    shape = {"batch_size": batch_size, "num_tokens": num_tokens, "num_batches": num_batches}
    return model, create_token_batches(texts, tokenizer, **shape)


def measure_peak_extra_bytes(function: Callable[[], object], *, trims: bool = True) -> int:
    """Returns by how much the resident memory of this process rises at most during a call (Linux: VmHWM over VmRSS).

    To be called in a process of its own, by `call_in_new_process`: what was freed before would be used again unseen.
    Warm up on a small input, so that compiled code and threads are there already.

    Args:
        function: What is measured.
        trims: Whether what the allocator keeps of freed memory is given back before. Then small blocks that lie
            scattered over it are counted with the whole pages that they touch, and otherwise not at all.
    """
    gc.collect()
    if trims:
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
        "processor": _read_field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "num_cpus": os.cpu_count(),
        "num_torch_threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "commit": find_commit(ROOT),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_results(name: str, payload: Mapping[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`, the payload with the machine beside it, and returns its path."""
    path = _find_results(name)
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe_machine(), **payload}, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_results(name: str) -> dict[str, Any]:
    """Returns what `write_results` wrote under a name, the machine included."""
    content: dict[str, Any] = json.loads(_find_results(name).read_text(encoding="utf-8"))
    return content


def find_commit(checkout: Path) -> str:
    """Returns the commit of a checkout, "-dirty" behind it where files are altered; "unknown" outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    return found.stdout.strip() or "unknown"


def _find_results(name: str) -> Path:
    return RESULTS / f"{name.replace('-', '_')}.json"


def _status_bytes(field: str) -> int:
    found = _read_field(Path("/proc/self/status"), field)
    if found is None:
        raise RuntimeError(f"/proc/self/status must have {field}, but has not; memory is measured on Linux only")
    return int(found.split()[0]) * 1024


def _read_field(path: Path, field: str) -> str | None:
    """Returns what stands behind the first "FIELD:" of a file."""
    fields = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return next((value.strip() for name, _, value in fields if name.strip() == field), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

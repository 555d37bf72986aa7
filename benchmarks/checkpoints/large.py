"""Masks and pruned copies of a checkpoint that is larger than memory, beside reading and writing its files once.

`python -m benchmarks.checkpoints.large --folder FOLDER` makes 14.77 B bf16 weights there, 29.5 GB and as much again
for copies, and writes `results/checkpoints.json`. Each step runs in a process of its own, of which the peak resident
memory is taken; before each the system's cache is emptied, which takes root. Plain reading and copying are timed in
turns with ours, through the cache and past it; the fastest way is what ours is compared with.
"""

import argparse
import hashlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.checkpoints.making import make_checkpoint
from benchmarks.common import ROOT, describe_machine, write_results
from lottery_tickets import CheckpointWeights, Mask, apply_mask, create_magnitude_mask
from lottery_tickets._core.selection import largest, one_pass
from lottery_tickets.checkpoints import compute_layer_statistics

BLOCK = 1 << 23
SPARSITY = 0.5
SHARES_KILLED = (0.2, 0.4, 0.6)  # of the time that the whole takes


def read_plainly(folder: Path, *, is_direct: bool) -> None:
    """Reads all shards once, one block after the other."""
    buffer = mmap.mmap(-1, BLOCK)
    for path in sorted(folder.glob("*.safetensors")):
        descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if is_direct else 0))
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)


def copy_plainly(folder: Path, output: Path, *, is_direct: bool) -> None:
    """Copies all shards, one block after the other, to the disk."""
    output.mkdir()
    buffer, flags = mmap.mmap(-1, BLOCK), os.O_DIRECT if is_direct else 0
    for path in sorted(folder.glob("*.safetensors")):
        source = os.open(path, os.O_RDONLY | flags)
        target = os.open(output / path.name, os.O_WRONLY | os.O_CREAT | flags, 0o666)
        while number := os.readv(source, [buffer]):
            os.write(target, memoryview(buffer)[: -(-number // 4096) * 4096])
        os.ftruncate(target, path.stat().st_size)
        os.fsync(target)
        os.close(source)
        os.close(target)


def miss_the_bracket() -> None:
    """Has the sample suggest a threshold that is off by its bracket's width, so that the files are read again."""
    guess = one_pass.guess_bracket

    def guess_off(magnitudes: Any, num_kept: int, *deviations: float) -> tuple[int, int]:  # noqa: ANN401 - handed on
        lo, hi = guess(magnitudes, num_kept, *deviations)
        return (lo, hi) if deviations else (hi + 1, hi + 1 + hi - lo)

    setattr(largest, "guess_bracket", guess_off)  # noqa: B010 - in this process only


def hash_files(folder: Path) -> str:
    """Returns a hash over the files of a folder."""

    def hash_one(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(hash_one, sorted(folder.iterdir())))
    return hashlib.sha256("".join(found).encode()).hexdigest()


def run_step(step: str, folder: Path) -> dict[str, Any]:
    """Does one step, in this process; returns what it found."""
    model, mask, output = folder / "model", folder / "mask.safetensors", folder / "copy"
    steps: dict[str, Callable[[], object]] = {
        "read": lambda: read_plainly(model, is_direct=False),
        "read past the cache": lambda: read_plainly(model, is_direct=True),
        "copy": lambda: copy_plainly(model, output, is_direct=False),
        "copy past the cache": lambda: copy_plainly(model, output, is_direct=True),
        "mask": lambda: create_magnitude_mask(CheckpointWeights(model), SPARSITY),
        "mask, second read": lambda: create_magnitude_mask(CheckpointWeights(model), SPARSITY),
        "statistics": lambda: compute_layer_statistics(CheckpointWeights(model)),
        "apply": lambda: apply_mask(CheckpointWeights(model), Mask.load(mask), output=output),
    }
    if step == "mask, second read":
        miss_the_bracket()
    start = time.perf_counter()
    made = steps[step]()
    found: dict[str, Any] = {"seconds": time.perf_counter() - start}
    if isinstance(made, Mask):
        start = time.perf_counter()
        made.save(folder / "made.safetensors")
        found |= {"save_seconds": time.perf_counter() - start, "digest": made.digest, "sparsity": made.sparsity}
        if step == "mask":
            (folder / "made.safetensors").replace(mask)
    return found


def start_step(step: str, folder: Path) -> subprocess.Popen[str]:
    """Starts a step in a process of its own, with an empty cache."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    command = [sys.executable, "-m", "benchmarks.checkpoints.large", "--folder", str(folder), "--step", step]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours


def measure_step(step: str, folder: Path) -> dict[str, Any]:
    """Returns what a step found, with its peak resident memory and the seconds of the whole process."""
    started = time.perf_counter()
    process = start_step(step, folder)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{step!r} must end well, but ended with {status}")
    peak = usage.ru_maxrss * 1024
    found = {**json.loads(said), "process_seconds": time.perf_counter() - started, "peak_resident_bytes": peak}
    print(f"{step}: {found['seconds']:.1f} s, peak {peak / 1e9:.2f} GB", flush=True)
    return {"step": step, **found}


def kill_and_go_on(step: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Kills a step three times on its way, then lets it end; returns what the last one found."""
    for share in SHARES_KILLED:
        process = start_step(step, folder)
        time.sleep(share * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"{step}: killed after {share * seconds:.0f} s", flush=True)
    return measure_step(step, folder)


def measure_all(folder: Path, repeats: int) -> dict[str, Any]:
    """Returns all that is measured."""
    steps = []
    for _ in range(repeats):
        steps += [measure_step(step, folder) for step in ("read", "read past the cache", "mask", "mask, second read")]
    steps.append(measure_step("statistics", folder))
    digests = {found["digest"] for found in steps if found["step"].startswith("mask")}
    for step in ("copy", "copy past the cache"):
        steps.append(measure_step(step, folder))
        shutil.rmtree(folder / "copy")
    steps.append(measure_step("apply", folder))
    whole = hash_files(folder / "copy")
    shutil.rmtree(folder / "copy")
    after = [kill_and_go_on("mask", folder, min_seconds(steps, "process_seconds", "mask"))]
    after.append(kill_and_go_on("apply", folder, min_seconds(steps, "process_seconds", "apply")))
    is_same = hash_files(folder / "copy") == whole and {after[0]["digest"]} == digests
    shutil.rmtree(folder / "copy")
    return {"steps": steps, "after_three_kills": after, "bits_after_kills_are_those_without": is_same}


def min_seconds(steps: list[dict[str, Any]], key: str, *names: str) -> float:
    """Returns the least seconds of some steps."""
    return min(float(found[key]) for found in steps if found["step"] in names)


def compare(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Returns ours over reading, or copying, by the way that was fastest."""
    read = min_seconds(steps, "seconds", "read", "read past the cache")
    copy = min_seconds(steps, "seconds", "copy", "copy past the cache")
    names = ("mask", "mask, second read", "statistics")
    ratios = {f"{name} over reading": min_seconds(steps, "seconds", name) / read for name in names}
    return {**ratios, "apply over copying": min_seconds(steps, "seconds", "apply") / copy}


def main() -> None:
    """Makes the checkpoint, measures, prints and writes `results/checkpoints.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step")
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.folder)))
        return
    print(describe_machine())
    num_bytes = make_checkpoint(arguments.folder / "model", arguments.layers)
    found = measure_all(arguments.folder, arguments.repeats)
    ratios = compare(found["steps"])
    print(json.dumps(ratios, indent=2), found["bits_after_kills_are_those_without"])
    payload = {"num_bytes": num_bytes, "num_layers": arguments.layers, "repeats": arguments.repeats, "ratios": ratios}
    print(write_results("checkpoints", {**payload, **found}))


if __name__ == "__main__":
    main()

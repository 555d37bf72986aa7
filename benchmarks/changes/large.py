"""`lottery-tickets diff` of checkpoints that are larger than memory, beside reading both once.

`python -m benchmarks.changes.large --folder FOLDER` makes 14.77 B bf16 weights there, 29.5 GB, and two copies of which
one weight in a hundred is another, and writes `results/diff_large.json`; where the disk has no room for three,
`--copies 1` and `--layers` take less. Each step runs in a process of its own, of which the peak resident memory is
taken; before each the system's cache is emptied, which takes root.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoints.large import read_plainly
from benchmarks.checkpoints.making import make_checkpoint
from benchmarks.common import ROOT, describe_machine, write_results
from lottery_tickets import CheckpointWeights, compute_change_mask, compute_change_statistics, compute_changes
from lottery_tickets._core.tensor_files.headers import read_header
from lottery_tickets.changes import apply_difference, save_difference

WORDS_PER_BLOCK = 1 << 22
EVERY = 100  # weights of which one is changed
LARGEST = 0.999  # sparsity of the masks of largest changes
COPIES = ("first", "second")


def make_copy(source: Path, target: Path, seed: int) -> None:
    """Writes a copy of a checkpoint in which about one weight in a hundred is the next number, at random places."""
    if (target / "config.json").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for path in sorted(source.iterdir()):
        if path.suffix != ".safetensors":
            continue
        start = read_header(path).start
        with path.open("rb") as old, (target / path.name).open("wb") as new:
            new.write(old.read(start))
            while block := old.read(2 * WORDS_PER_BLOCK):
                words = np.frombuffer(block, np.uint16).copy()
                words[generator.integers(0, len(words), len(words) // EVERY)] ^= 1
                new.write(words.data)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, target / path.name)


def run_step(step: str, folder: Path) -> dict[str, Any]:
    """Does one step, in this process; returns what it found."""
    before, patch = folder / "model", folder / "patch.safetensors"
    weights = CheckpointWeights(before)
    after = [CheckpointWeights(folder / name) for name in COPIES if (folder / name).exists()]

    def read_both(*, is_direct: bool) -> None:
        read_plainly(before, is_direct=is_direct)
        read_plainly(folder / COPIES[0], is_direct=is_direct)

    steps: dict[str, Callable[[], Any]] = {
        "read both": lambda: read_both(is_direct=False),
        "read both past the cache": lambda: read_both(is_direct=True),
        "statistics": lambda: compute_change_statistics(weights, after[0])["overall"]["num_changed"],
        "mask": lambda: compute_change_mask(weights, after[0]).num_kept,
        "largest changes": lambda: compute_change_mask(weights, after[0], by="delta", sparsity=LARGEST).num_kept,
        "diff": lambda: compute_changes(weights, after[:1])["masks"]["0"].num_kept,
        "diff of two": lambda: compute_changes(weights, after)["overlaps"],
        "save difference": lambda: save_difference(weights, after[0], patch),
        "apply difference": lambda: apply_difference(weights, patch, output=folder / "copy"),
    }
    start = time.perf_counter()
    made = steps[step]()
    return {"seconds": time.perf_counter() - start, "found": made}


def measure_step(step: str, folder: Path) -> dict[str, Any]:
    """Returns what a step found in a process of its own with an empty cache, and the peak of its resident memory."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    command = [sys.executable, "-m", "benchmarks.changes.large", "--folder", str(folder), "--step", step]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{step!r} must end well, but ended with {status}")
    found = {"step": step, **json.loads(said), "peak_resident_bytes": usage.ru_maxrss * 1024}
    print(f"{step}: {found['seconds']:.1f} s, peak {found['peak_resident_bytes'] / 1e9:.2f} GB", flush=True)
    return found


def main() -> None:
    """Makes the checkpoints, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--copies", type=int, default=2, choices=(1, 2), help="as the disk has room")
    parser.add_argument("--step")
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.folder)))
        return
    print(describe_machine())
    num_bytes = make_checkpoint(arguments.folder / "model", arguments.layers)
    for seed, name in enumerate(COPIES[: arguments.copies]):
        make_copy(arguments.folder / "model", arguments.folder / name, seed)
    names = [
        "read both",
        "read both past the cache",
        "statistics",
        "mask",
        "largest changes",
        "diff",
        "save difference",
    ]
    names += ["diff of two"] * (arguments.copies > 1)
    steps = {name: measure_step(name, arguments.folder) for name in names}
    read = min(steps[name]["seconds"] for name in names[:2])
    ratios = {name: steps[name]["seconds"] / read for name in names[2:]}
    payload = {"num_bytes": num_bytes, "num_layers": arguments.layers, "over_reading_both": ratios}
    print(write_results("diff_large", {**payload, "steps": list(steps.values())}))


if __name__ == "__main__":
    main()

"""Perplexity and Wanda's mask of a checkpoint that is streamed, beside those of the model in memory: time and memory.

`PYTHONPATH=src python -m benchmarks.checkpoints.streaming [--large FOLDER]` saves SmolLM2-135M to runs/streaming, runs
each step in a process of its own, in turns, and writes `results/streaming.json`; what is there already is not measured
again. `--large` names a checkpoint that does
not fit into memory, such as `benchmarks.checkpoints.large` makes: of this one perplexity is measured on one batch,
beside reading its files once; before each the system's cache is emptied, which takes root.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.checkpoints.large import read_plainly
from benchmarks.common import ROOT, load_language, measure_peak_extra_bytes, write_results
from benchmarks.studies.parts import keep
from lottery_tickets import CheckpointWeights, compute_performance, create_wanda_mask
from lottery_tickets.workloads import load_smollm2

FOLDER = ROOT / "runs" / "streaming"
SHAPE = {"batch_size": 2, "num_tokens": 256, "num_batches": 2}
LARGE_SHAPE = (1, 128)
STEPS = ("perplexity, in memory", "perplexity, streamed", "Wanda, in memory", "Wanda, streamed")
LARGE_STEPS = ("read", "read past the cache", "perplexity, streamed")
REPEATS = 2


def prepare() -> None:
    """Saves model and batches, where they are not yet."""
    if FOLDER.exists():
        return
    model: Any = load_smollm2()[0]
    model.save_pretrained(FOLDER / "model", max_shard_size="100MB")
    torch.save(load_language(**SHAPE, split="test")[1], FOLDER / "batches.pt")


def run_step(step: str, folder: Path | None) -> dict[str, Any]:
    """Does one step, in this process; returns what it found."""
    model = folder or FOLDER / "model"
    if folder is None:
        batches = torch.load(FOLDER / "batches.pt")
    else:
        vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        generator = torch.Generator().manual_seed(0)
        batches = [{"input_ids": torch.randint(vocabulary, LARGE_SHAPE, generator=generator)}]
    found: dict[str, Any] = {}

    def work() -> None:
        if step.startswith("read"):
            read_plainly(model, is_direct=step != "read")
            return
        weights: Any = CheckpointWeights(model)
        if step.endswith("in memory"):
            weights = transformers.AutoModelForCausalLM.from_pretrained(model)
        if step.startswith("perplexity"):
            found["loss"] = compute_performance(weights, batches)["loss"]
        else:
            found["digest"] = create_wanda_mask(weights, batches, 0.5).digest

    cpu, start = time.process_time(), time.perf_counter()
    extra = measure_peak_extra_bytes(work)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return found | {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_extra_bytes": extra}


def find_file(step: str, number: int | str) -> Path:
    """Returns where a run of a step is kept."""
    return FOLDER / f"{step.replace(', ', '-').replace(' ', '-')}-{number}.json"


def measure_step(step: str, folder: Path | None) -> dict[str, Any]:
    """Returns what a step found in a process of its own."""
    if folder is not None:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    place = [] if folder is None else ["--large", str(folder)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # large blocks are returned at once
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.checkpoints.streaming", "--step", step, *place]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    print(step, found, flush=True)
    return found | {"load_average": os.getloadavg()[0]}


def sum_up(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the least times and the largest memory of some runs, and what all of them found."""
    [found] = {run.get("loss", run.get("digest")) for run in runs}
    return {
        "found": found,
        "min_seconds": min(run["seconds"] for run in runs),
        "median_seconds": statistics.median(run["seconds"] for run in runs),
        "min_cpu_seconds": min(run["cpu_seconds"] for run in runs),
        "peak_extra_bytes": max(run["peak_extra_bytes"] for run in runs),
        "repeats": len(runs),
    }


def compare(steps: dict[str, dict[str, Any]], what: str) -> dict[str, float]:
    """Returns the ratios of streamed to in memory, which found the same."""
    streamed, in_memory = steps[f"{what}, streamed"], steps[f"{what}, in memory"]
    assert streamed["found"] == in_memory["found"]
    names = ("min_seconds", "min_cpu_seconds", "peak_extra_bytes")
    return {name: streamed[name] / in_memory[name] for name in names}


def main() -> None:
    """Runs all steps in turns, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=Path, help="the folder of a checkpoint that does not fit into memory")
    parser.add_argument("--step", choices=sorted({*STEPS, *LARGE_STEPS}), help="do this one, here")
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(run_step(arguments.step, arguments.large)))
        return
    prepare()
    runs: dict[str, list[dict[str, Any]]] = {step: [] for step in STEPS}
    for number in range(REPEATS):
        for step in STEPS:
            runs[step].append(keep(find_file(step, number), partial(measure_step, step, None)))
    steps = {step: sum_up(found) for step, found in runs.items()}
    payload: dict[str, Any] = {
        "settings": SHAPE,
        "model_bytes": CheckpointWeights(FOLDER / "model").num_bytes,
        "steps": steps,
        "ratios": {what: compare(steps, what) for what in ("perplexity", "Wanda")},
    }
    if arguments.large is not None:
        payload["large"] = {
            "shape": LARGE_SHAPE,
            "model_bytes": CheckpointWeights(arguments.large).num_bytes,
            "steps": {
                step: keep(find_file(step, "large"), partial(measure_step, step, arguments.large))
                for step in LARGE_STEPS
            },
        }
    print(payload["ratios"])
    print(write_results("streaming", payload))


if __name__ == "__main__":
    main()

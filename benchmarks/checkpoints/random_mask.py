"""A random mask of 13 billion weights, in the shapes of Qwen2.5-14B, beside drawing the same numbers by `torch.rand`.

`python -m benchmarks.checkpoints.random_mask` writes `results/random_mask.json`. Nothing is read: what is drawn depends
on the shapes alone. The two are timed in turns, `--repeats` times; peak memory is taken after the masks.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.checkpoints.making import list_shapes
from benchmarks.common import describe_machine, write_results
from lottery_tickets import Mask, create_random_mask
from lottery_tickets._core.determinism import make_generator

SPARSITY = 0.5
SEED = 0
DRAWS_AT_ONCE = 1 << 22


def draw_by_torch(number: int) -> None:
    """Draws so many float64 numbers, block by block: what selecting them would wait for."""
    generator, block = make_generator(SEED, "random mask"), torch.empty(DRAWS_AT_ONCE, dtype=torch.float64)
    for start in range(0, number, DRAWS_AT_ONCE):
        part = block[: min(DRAWS_AT_ONCE, number - start)]
        torch.rand(len(part), generator=generator, dtype=torch.float64, out=part)


def time_both(function: Callable[[], object]) -> dict[str, float]:
    """Returns the seconds of a call on the wall and on all processors."""
    start, cpu_start = time.perf_counter(), time.process_time()
    function()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}


def main() -> None:
    """Measures, prints and writes `results/random_mask.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    shapes = {name: torch.Size(s) for name, s in list_shapes(arguments.layers).items() if "proj.weight" in name}
    number = sum(shape.numel() for shape in shapes.values())
    everything = Mask.keeping_all(shapes)
    create_random_mask(Mask.keeping_all({"a": (1 << 11, 1 << 11)}), SPARSITY, SEED)  # compiles
    steps: list[dict[str, Any]] = []
    for _ in range(arguments.repeats):
        steps.append({"step": "mask", **time_both(lambda: create_random_mask(everything, SPARSITY, SEED))})
        steps.append({"step": "torch.rand", **time_both(lambda: draw_by_torch(number))})
        print(json.dumps(steps[-2:]), flush=True)
    peak = describe_machine()["peak_resident_bytes"]  # `torch.rand` adds a block to it
    payload = {"num_weights": number, "repeats": arguments.repeats, "peak_resident_bytes": peak, "steps": steps}
    print(write_results("random-mask", payload))


if __name__ == "__main__":
    main()

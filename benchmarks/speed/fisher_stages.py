"""Where the time of a Fisher diagonal's first batch goes, on the CNNs of `fisher_first_batch`, layer by layer.

A layer's product of each sample, squared and added, is timed within the run, and again alone, repeated on the same
numbers, which then lie in the cache: the least that these calls can cost. Least CPU times, one thread.
Run `python -m benchmarks.speed.fisher_stages`; the figures go to benchmarks/results/fisher_stages.json.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.common import ROOT, write_results
from benchmarks.speed.fisher_first_batch import BATCH, CASES, KEEPING_MEMORY, measure_case
from lottery_tickets import compute_fisher_importance
from lottery_tickets._core.gradients import stream
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.sums import ValueSums, add_uses
from lottery_tickets._core.gradients.uses import Use

REPEATS: Final = 12


def measure_layers(name: str) -> list[dict[str, Any]]:
    """Returns for each weight what its products are, and their least milliseconds in the run and alone."""
    torch.manual_seed(0)
    build, size = CASES[name]
    model = build().eval()
    batch = (torch.randn(BATCH, 3, size, size), torch.randint(10, (BATCH,)))
    again: dict[str, Callable[[], object]] = {}
    layers: dict[str, dict[str, Any]] = {}

    def add(
        sums: Sequence[ValueSums],
        place: Place,
        uses: Sequence[Use],
        weight: Tensor,
        limit: int | None,
        *,
        watched: int | None = None,
    ) -> Tensor | None:
        start = time.process_time()
        result = add_uses(sums, place, uses, weight, limit, watched=watched)
        seconds = time.process_time() - start
        kind, shape = type(uses[0]).__name__, list(uses[0].shape)
        layer = layers.setdefault(place.name, {"name": place.name, "kind": kind, "rows_columns": shape, "in_run": 1.0})
        layer["in_run"] = min(layer["in_run"], seconds)
        again[place.name] = lambda: add_uses(sums, place, uses, weight, limit, watched=watched)
        return result

    with patch.object(stream, "add_uses", add):
        for _ in range(REPEATS):
            compute_fisher_importance(model, [batch], BATCH)
    for weight, function in again.items():
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        layers[weight]["alone"] = min(times)
    return list(layers.values())


def main() -> None:
    """Measures each network in a process of its own, and writes the figures."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps({"seconds": measure_case(sys.argv[2]), "layers": measure_layers(sys.argv[2])}))
        return
    found = {}
    for name in CASES:
        command = [sys.executable, "-m", "benchmarks.speed.fisher_stages", "--case", name]
        environment = {**os.environ, **KEEPING_MEMORY}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        found[name] = json.loads(done.stdout)
        print(name, json.dumps(found[name]["seconds"]), flush=True)
    write_results("fisher-stages", {"threads": 1, "samples_a_batch": BATCH, "networks": found})


if __name__ == "__main__":
    main()

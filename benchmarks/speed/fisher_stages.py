"""Where the time of a Fisher diagonal's first batch goes, on the CNNs of `fisher_first_batch`, layer by layer.

A layer's product of each sample, squared and added, is timed within the run, and again alone, repeated on the same
numbers, which then lie in the cache: the least that these calls can cost. So are torch's gradients of one sample, with
which they are compared. The passes are timed too, beside bare ones of the same batch that compute no gradient of a
weight, and bare ones that are watched: each call of a torch function is seen in Python, which takes the same shortcuts,
and the input of each layer kept for a call with its output's gradient, which does nothing. Least CPU times, one thread.
Run `python -m benchmarks.speed.fisher_stages`; the figures go to benchmarks/results/fisher_stages.json.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.common import ROOT, write_results
from benchmarks.speed.fisher_first_batch import BATCH, CASES, KEEPING_MEMORY, differentiating_activations, measure_case
from lottery_tickets import compute_fisher_importance
from lottery_tickets._core.gradients import shares
from lottery_tickets._core.gradients.passes import Passes, WholeBatch
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.shortcuts import SHORTCUTS, mix_channels
from lottery_tickets._core.gradients.sums import ValueSums, add_uses
from lottery_tickets._core.gradients.taps import Tap
from lottery_tickets._core.gradients.tracking import Tracker
from lottery_tickets._core.gradients.uses import Use, find_geometry

REPEATS: Final = 12
ANCHOR: Final = torch.empty(0, requires_grad=True)
LAYERS: Final = (nn.functional.conv2d, nn.functional.linear)


class _BareMode(TorchFunctionMode):
    """Sees every call of a torch function, and taps layers; the least that watching a forward pass in Python costs."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - as above
        shortcut = SHORTCUTS.get(func)
        if shortcut is not None:
            return shortcut(func, *args, **(kwargs or {}))
        if func not in LAYERS:
            return func(*args, **(kwargs or {}))
        inputs, weight, bias, *steps = args
        mixes = bool(steps) and steps[3] == 1 and find_geometry(tuple(weight.shape[2:]), *steps[:3]).is_point
        run = functools.partial(func, *args, **(kwargs or {}))
        output, back = mix_channels(run, inputs, weight, bias) if mixes else (run(), None)
        source = ANCHOR if back is None else inputs
        return Tap.apply(output, source, lambda *_: None, back, inputs.detach())  # type: ignore[no-untyped-call]  # torch's


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

    with patch.object(shares, "add_uses", add):
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


def measure_passes(name: str) -> dict[str, float]:
    """Returns the least seconds of our passes and what lies around them, and of passes without weight gradients.

    Of ours "again" are torch's gradients of one sample, within the backward pass.
    """
    torch.manual_seed(0)
    build, size = CASES[name]
    model = build().eval()
    batch = (torch.randn(BATCH, 3, size, size), torch.randint(10, (BATCH,)))
    found: list[dict[str, float]] = []

    def time_method(function: Callable[..., object], key: str) -> Callable[..., object]:
        @functools.wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            start = time.process_time()
            result = function(*args, **kwargs)
            found[-1][key] = found[-1].get(key, 0) + time.process_time() - start
            return result

        return call

    methods = {(Passes, "run_whole"): "forward", (WholeBatch, "run_backward"): "backward"}
    methods[Tracker, "_repeat"] = "again"
    with contextlib.ExitStack() as stack:
        for (owner, method), key in methods.items():
            stack.enter_context(patch.object(owner, method, time_method(getattr(owner, method), key)))
        for _ in range(REPEATS):
            found.append({})
            with differentiating_activations(model):
                start = time.process_time()
                loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
                middle = time.process_time()
                loss.backward()
                bare = {"bare_forward": middle - start, "bare_backward": time.process_time() - middle}
                start = time.process_time()
                with _BareMode():
                    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
                loss.backward()
                bare["bare_watched"] = time.process_time() - start
            end = time.process_time()
            compute_fisher_importance(model, [batch], BATCH)
            passes = found[-1]["forward"] + found[-1]["backward"]
            found[-1]["around"] = time.process_time() - end - passes
            found[-1].update(bare)
    return {key: min(seconds[key] for seconds in found) for key in found[0]}


def main() -> None:
    """Measures each network in a process of its own, and writes the figures."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--case"]:
        name = sys.argv[2]
        figures = {"seconds": measure_case(name), "passes": measure_passes(name), "layers": measure_layers(name)}
        print(json.dumps(figures))
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

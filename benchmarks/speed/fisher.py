"""Time and memory of a Fisher diagonal beside one plain forward and backward pass, and beside the peers, in one run.

Floor of the time: forward, backward to the activations, and for each sample the product that a weight's gradient is;
that is one forward and backward pass, plus one pass over the sums for each sample and weight. Floor of the memory: one
float32 a weight, and the gradient of one sample of one layer.

`benchmarks/peers/install_peers.sh FOLDER` makes the environment; run `FOLDER/bin/python -m benchmarks.speed.fisher`.
The figures go to benchmarks/results/fisher.json. The name of a case, or "memory", measures that anew.
"""

import json
import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import (
    call_in_new_process,
    measure_peak_extra_bytes,
    read_results,
    time_call,
    write_results,
)
from benchmarks.peers.fisher_models import Case, minilm, resnet20, smollm2
from benchmarks.peers.fisher_peers import PEERS, compute_diagonal, count_samples
from lottery_tickets import compute_fisher_importance
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.gradients.values import SQUARE, Value
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.prunable_weights import find_prunable_weights

CASES: dict[str, Callable[[], Case]] = {
    "ResNet-20, 64 images": lambda: resnet20(num_batches=9),
    "MiniLM, 16 x 128 tokens": lambda: minilm(num_batches=5),
    "SmolLM2-135M, 4 x 256 tokens": lambda: smollm2(num_batches=3),
}
REPEATS = {"ResNet-20, 64 images": 9, "MiniLM, 16 x 128 tokens": 5, "SmolLM2-135M, 4 x 256 tokens": 3}
WARM_UPS = 0.5  # seconds; a peer whose first call takes longer is not called once more to warm up
SLOW_PEERS = ("loop", "vmap", "backpack", "opacus", "nngeometry")
WAYS = ("plain", "passes", "fisher", "errors")
MEMORY_CASE = {"batch_size": 4, "num_tokens": 256, "num_batches": 2}


def main() -> None:
    """Measures and writes the figures."""
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    warnings.filterwarnings("ignore", message="Extension saving to sum_grad_squared does not have")
    payload: dict[str, Any] = {"threads": torch.get_num_threads(), "time": {}}
    for name, make in CASES.items():
        payload["time"][name] = measure_time(make(), REPEATS[name])
        print(name, json.dumps(payload["time"][name], indent=1), flush=True)
    payload["memory"] = measure_memory()
    print(json.dumps(payload["memory"], indent=1))
    write_results("fisher", payload)


def measure_again(name: str) -> None:
    """Measures the time of one case anew, or "memory", and keeps the other figures."""
    payload = read_results("fisher")
    former = payload.pop("machine")
    if name == "memory":
        payload["memory"] = measure_memory()
    else:
        payload["time"][name] = measure_time(CASES[name](), REPEATS[name])
    again = [*payload.pop("measured_again", []), {"what": name, "others_on": former}]
    write_results("fisher", {**payload, "measured_again": again})


def measure_memory() -> dict[str, Any]:
    """Returns peak extra bytes, each way in a process of its own: what sums and blocks take, beside what they must."""
    measured = {what: int(call_in_new_process(__file__, what)) for what in WAYS}
    weights = [weight.tensor.numel() for weight in find_prunable_weights(smollm2(**MEMORY_CASE).model).values()]
    sums = 4 * sum(weights)
    return {
        "case": "SmolLM2-135M, 4 x 256 tokens",
        "peak_extra_bytes": measured,
        "sums_bytes": sums,
        "largest_layer_bytes": 4 * max(weights),
        "beside_sums_bytes": measured["fisher"] - measured["passes"] - sums,
        "fisher_over_plain": measured["fisher"] / measured["plain"],
    }


def measure_time(case: Case, repeats: int) -> dict[str, Any]:
    """Returns seconds a batch, each way in turn, and their ratios to a plain forward and backward pass.

    Ours are two figures: a batch, from the difference of many batches and one; and what the first costs besides, in
    which two samples are compared with each of them alone.
    """
    rest = case._replace(batches=case.batches[1:])
    one, two = case._replace(batches=case.batches[:1]), case._replace(batches=case.batches[:2])
    plain: list[float] = []
    ours: list[float] = []
    first: list[float] = []
    peers: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    warm: set[str] = set()
    run_plain(two)
    run_ours(two)
    for _ in range(repeats):
        plain.append(time_call(lambda: run_plain(rest)) / len(rest.batches))
        short, long = time_call(lambda: run_ours(one)), time_call(lambda: run_ours(case))
        ours.append((long - short) / len(rest.batches))
        first.append(short - ours[-1])
        for name in SLOW_PEERS:
            if name in reasons:
                continue
            try:
                seconds = time_call(lambda name=name: compute_diagonal(PEERS[name], one))  # type: ignore[misc]
                if name in warm or seconds > WARM_UPS:
                    peers.setdefault(name, []).append(seconds)
                warm.add(name)
            except Exception as error:  # noqa: BLE001 - a peer may raise anything, and what it says is recorded
                reasons[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    base = statistics.median(plain)
    return {
        "samples_a_batch": count_samples(case.batches[0]),
        "num_weights": sum(w.tensor.numel() for w in find_prunable_weights(case.model).values()),
        "plain_seconds": base,
        "ours_seconds": statistics.median(ours),
        "ours_over_plain": statistics.median(a / b for a, b in zip(ours, plain, strict=True)),
        "ours_over_plain_all": [a / b for a, b in zip(ours, plain, strict=True)],
        "first_batch_besides_over_plain": statistics.median(first) / base,
        "peers_over_plain": {name: statistics.median(seconds) / base for name, seconds in peers.items()},
        "peers_that_cannot": reasons,
    }


def run_plain(case: Case) -> None:
    """One forward and one backward pass a batch, all gradients, as training has it."""
    case.model.eval()
    for batch in case.batches:
        case.model.zero_grad(set_to_none=True)
        compute_loss(case.model, batch, case.loss_fn).backward()
    case.model.zero_grad(set_to_none=True)


def run_ours(case: Case) -> None:
    """The public function."""
    report = compute_fisher_importance(case.model, case.batches, 10**6, loss_fn=case.loss_fn).report
    assert report["computed"] == "whole batches", report["reason"]


def print_memory(what: str) -> None:
    """Prints the peak extra bytes of one way, in a process of its own."""
    case = smollm2(**MEMORY_CASE)
    small = case._replace(batches=[{key: value[:2, :16] for key, value in case.batches[0].items()}])
    ways: dict[str, Callable[[Case], None]] = {
        "plain": run_plain,
        "passes": lambda c: run_stream(c, [], squares=False),
        "fisher": lambda c: run_stream(c, [SQUARE], squares=False),
        "errors": lambda c: run_stream(c, [SQUARE], squares=True),
    }
    run = ways[what]
    run(small)
    print(measure_peak_extra_bytes(lambda: run(case)))


def run_stream(case: Case, values: list[Value], *, squares: bool) -> None:
    """Our passes with the sums of some values, or of none; the verification is switched off, it holds less."""
    weights = find_prunable_weights(case.model)
    stream = GradientStream(case.model, weights, values, ScoringOptions(standard_errors=squares))
    stream.separation.verified = {True}  # else its peak, of two samples, would be in the figures
    stream.run(case.batches, 10**6)
    for value in values:
        stream.take(value)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] in WAYS:
        print_memory(sys.argv[1])
    else:
        measure_again(sys.argv[1])

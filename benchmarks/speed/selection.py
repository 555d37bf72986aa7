"""Times mask creation beside torch's prune, numpy's partition and one pass of torch.sum; measures its extra memory.

Run with `python -m benchmarks.speed.selection`; a few minutes on two cores, about 1.5 GB. Ratios are of minima over
interleaved calls in one process; torch's prune of the large model, which takes seconds, is called once. Ratios to
torch.sum are taken with one thread too: on a busy machine torch's threads wait for each other, ours do not.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.common import (
    Timing,
    call_in_new_process,
    describe_machine,
    measure,
    measure_peak_extra_bytes,
    show_timings,
    write_results,
)
from lottery_tickets import create_magnitude_mask
from statistical_report_generator.rows import format_rows

SEED = 0
SPARSITIES = (0.5, 0.9, 0.99)
SHAPES = [(1024, 1024)] * 4 + [(4096, 1024)] * 3 + [(512, 512, 3, 3)] * 6 + [(256, 256, 3, 3)] * 4
SHAPES += [(2048, 2048), (4096, 2048), (1000, 2048)]


def make_model() -> nn.ModuleList:
    """Returns 20 layers of together 50 M float32 weights, normal, of different scales."""
    generator = torch.Generator().manual_seed(SEED)
    layers = nn.ModuleList()
    for i, shape in enumerate(SHAPES):
        layer = nn.Linear(1, 1, bias=False) if len(shape) == 2 else nn.Conv2d(1, 1, 1, bias=False)  # noqa: PLR2004 - Linear
        layer.weight = nn.Parameter(torch.randn(shape, generator=generator) * 0.02 * (1 + i % 3))
        layers.append(layer)
    return layers


def prune_with_torch(weights: dict[str, Tensor], sparsity: float) -> list[Tensor]:
    """Returns the masks of `torch.nn.utils.prune.global_unstructured`, on new modules that hold the same tensors."""
    layers = [nn.Linear(1, 1, bias=False) for _ in weights]
    for layer, weight in zip(layers, weights.values(), strict=True):
        layer.weight = nn.Parameter(weight.detach())
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=sparsity
    )
    return [layer.get_buffer("weight_mask") for layer in layers]


def select_with_numpy(weights: dict[str, Tensor], sparsity: float) -> list[Any]:
    """Returns boolean arrays by numpy.partition over all magnitudes, then a comparison."""
    magnitudes = np.concatenate([np.abs(weight.detach().numpy()).ravel() for weight in weights.values()])
    num_removed = round(sparsity * magnitudes.size)
    threshold = np.partition(magnitudes, num_removed)[num_removed]
    return [np.abs(weight.detach().numpy()) >= threshold for weight in weights.values()]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def compare_large(sparsity: float, repeats: int, torch_repeats: int) -> dict[str, Any]:
    """Returns timings, ratios and extra memory on 50 M weights."""
    model = make_model()
    weights = weights_of(model)
    num_weights = sum(weight.numel() for weight in weights.values())
    half = {name: weight.bfloat16() for name, weight in weights.items()}
    earlier = create_magnitude_mask(model, sparsity / 2)
    timings = measure(
        {
            "ours": lambda: create_magnitude_mask(model, sparsity),
            "ours_within": lambda: create_magnitude_mask(model, sparsity, within=earlier),
            "ours_bfloat16": lambda: create_magnitude_mask(half, sparsity),
            "ours_one_thread": lambda: with_one_thread(lambda: create_magnitude_mask(model, sparsity)),
            "torch_sum": lambda: [weight.sum() for weight in weights.values()],
            "torch_sum_one_thread": lambda: with_one_thread(lambda: [weight.sum() for weight in weights.values()]),
            "numpy_partition": lambda: select_with_numpy(weights, sparsity),
        },
        repeats,
    )
    if torch_repeats:
        timings |= measure({"torch_prune": lambda: prune_with_torch(weights, sparsity)}, torch_repeats)
    mask = create_magnitude_mask(model, sparsity)
    assert mask.num_kept == num_weights - round(sparsity * num_weights)
    extra = int(call_in_new_process(__file__, "--only-memory", str(sparsity)))
    return {
        "sparsity": sparsity,
        "num_weights": num_weights,
        "num_tensors": len(weights),
        "timings": timings,
        "ratios": ratios_of(timings),
        "peak_extra_bytes": extra,
        "peak_extra_share_of_weights": extra / (4 * num_weights),
        "mask_share_of_weights": mask.nbytes / (4 * num_weights),
    }


def measure_memory(sparsity: float) -> int:
    """Returns the peak extra bytes of one mask of the large model, the mask itself included."""
    create_magnitude_mask(nn.Linear(2048, 2048), sparsity)
    model = make_model()
    return measure_peak_extra_bytes(lambda: create_magnitude_mask(model, sparsity))


def with_one_thread(function: Callable[[], object]) -> None:
    """Calls a function while torch, and so our kernels, may use one thread."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    function()
    torch.set_num_threads(num_threads)


def compare_small(repeats: int) -> dict[str, Any]:
    """Returns timings and ratios on LeNet-300-100."""
    model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    weights = {name: weight for name, weight in weights_of(model).items() if weight.ndim > 1}
    timings = measure(
        {
            "ours": lambda: create_magnitude_mask(model, 0.8),
            "torch_prune": lambda: prune_with_torch(weights, 0.8),
        },
        repeats,
    )
    return {"timings": timings, "ratios": ratios_of(timings)}


def ratios_of(timings: dict[str, Timing]) -> dict[str, float]:
    """Returns how many times as long as ours each other takes, and ours over one pass of torch.sum."""
    ours = timings["ours"]["min_seconds"]
    ratios = {f"{name}_over_ours": timing["min_seconds"] / ours for name, timing in timings.items() if name != "ours"}
    for threads in ("", "_one_thread"):
        if "torch_sum" in timings:
            one_pass = timings[f"torch_sum{threads}"]["min_seconds"]
            ratios[f"ours_over_torch_sum{threads}"] = timings[f"ours{threads}"]["min_seconds"] / one_pass
            del ratios[f"torch_sum{threads}_over_ours"]
    return ratios


def main() -> None:
    """Measures, prints and writes `results/selection.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--torch-repeats", type=int, default=1)
    parser.add_argument("--only-memory", type=float, metavar="SPARSITY", help="print the peak extra bytes")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="layer collapse")  # at 0.99 the layers of small scale are emptied
    if arguments.only_memory is not None:
        print(measure_memory(arguments.only_memory))
        return
    torch.manual_seed(SEED)
    print(describe_machine())
    large = []
    for sparsity in SPARSITIES:
        # torch's prune takes seconds and does not depend on the sparsity: timed once.
        found = compare_large(sparsity, arguments.repeats, arguments.torch_repeats if sparsity == SPARSITIES[1] else 0)
        large.append(found)
        show(f"50 M weights, sparsity {sparsity}", found)
        print(f"  extra memory: {found['peak_extra_share_of_weights']:.1%} of the weights' bytes")
    small = compare_small(50)
    show("LeNet-300-100", small)
    print(
        write_results("selection", {"seed": SEED, "repeats": arguments.repeats, "large": large, "lenet_300_100": small})
    )


def show(title: str, found: dict[str, Any]) -> None:
    """Prints timings and ratios."""
    print(title)
    show_timings(found["timings"])
    print(format_rows([(name, f"{ratio:.2f}") for name, ratio in found["ratios"].items()], align="<>"))


if __name__ == "__main__":
    main()

"""Times the rank correlation of magnitudes at two moments beside scipy's, torchmetrics' and one read of the weights.

Run with `python -m benchmarks.speed.ranking`; some five minutes on two cores, and 10 GB for the 100 M weights, which
scipy sorts once. torchmetrics (1.9.0) is installed for this alone. Ratios are of interleaved calls in one process.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from benchmarks.common import (
    call_in_new_process,
    describe_machine,
    measure,
    measure_peak_extra_bytes,
    show_timings,
    write_results,
)
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.rank_correlation import correlate_ranks
from lottery_tickets.early_bird.snapshots import take_snapshot

SEED = 0
NUM_TIED = 2_000_000


def make_moments(num_weights: int, dtype: torch.dtype, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Returns normal weights, and the same with some noise added."""
    generator = torch.Generator().manual_seed(SEED)
    earlier = torch.randn(num_weights, generator=generator) * 0.02
    later = torch.randn(num_weights, generator=generator).mul_(0.02 * noise).add_(earlier)
    return earlier.to(dtype), later.to(dtype)


def correlate(earlier: Tensor, later: Tensor) -> float:
    """Returns ours: two snapshots and their correlation."""
    found = correlate_ranks(
        take_snapshot(Weights.from_tensors({"w": earlier})), take_snapshot(Weights.from_tensors({"w": later}))
    ).overall
    assert found is not None
    return found


def correlate_with_scipy(earlier: Tensor, later: Tensor) -> float:
    """Returns scipy's, of magnitudes as float32, which hold bfloat16 exactly."""
    return float(stats.spearmanr(earlier.float().abs().numpy(), later.float().abs().numpy()).statistic)


def compare(num_weights: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Returns timings, their ratios and the error, scipy timed `repeats` times between ours."""
    earlier, later = make_moments(num_weights, dtype)
    one, other = take_snapshot(Weights.from_tensors({"w": earlier})), take_snapshot(Weights.from_tensors({"w": later}))
    ours = {
        "snapshot": lambda: take_snapshot(Weights.from_tensors({"w": earlier})),
        "correlation": lambda: correlate_ranks(one, other),
        "ours": lambda: correlate(earlier, later),
        "read_both": lambda: (earlier.sum(), later.sum()),
    }
    ratios, scipy_seconds, timings = [], [], measure(ours, 9)
    value = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        value = correlate_with_scipy(earlier, later)
        scipy_seconds.append(time.perf_counter() - start)
        timings = measure(ours, 9)
        ratios.append(scipy_seconds[-1] / timings["ours"]["median_seconds"])
    found = {
        "num_weights": num_weights,
        "dtype": str(dtype),
        "scipy_seconds": scipy_seconds,
        "timings_after_the_last": timings,
        "scipy_over_ours": statistics.median(ratios),
        "ours_over_read_both": timings["ours"]["median_seconds"] / timings["read_both"]["median_seconds"],
        "scipy": value,
        "ours": correlate(earlier, later),
        "error": abs(correlate(earlier, later) - value),
        "bytes_a_weight_in_a_snapshot": one.codes["w"].element_size(),
    }
    show(found)
    return found


def compare_tied() -> dict[str, Any]:
    """Returns what each says of many tied magnitudes, where ranks times ranks need more than 32 bits."""
    earlier, later = make_moments(NUM_TIED, torch.bfloat16, noise=0.3)
    spearman = import_module("torchmetrics.functional").spearman_corrcoef
    ways: dict[str, Callable[[], float]] = {
        "scipy": lambda: correlate_with_scipy(earlier, later),
        "ours": lambda: correlate(earlier, later),
        "torchmetrics": lambda: float(spearman(later.float().abs(), earlier.float().abs())),
    }
    found = {
        "num_weights": NUM_TIED,
        "dtype": str(torch.bfloat16),
        "num_distinct_magnitudes": len(earlier.abs().unique()),
        **{name: way() for name, way in ways.items()},
        "timings": measure(ways, 3),
    }
    print(found)
    return found


def measure_memory(num_weights: int) -> int:
    """Returns the peak extra bytes of two snapshots and their correlation, the snapshots included."""
    correlate(*make_moments(2_000_000, torch.float32))
    earlier, later = make_moments(num_weights, torch.float32)
    return measure_peak_extra_bytes(lambda: correlate(earlier, later))


def show(found: dict[str, Any]) -> None:
    """Prints timings, ratios and the error."""
    print(f"{found['num_weights'] / 1e6:.0f} M {found['dtype']}: scipy {found['scipy_seconds']} s")
    show_timings(found["timings_after_the_last"])
    print(
        f"  scipy / ours {found['scipy_over_ours']:.0f}, ours / one read {found['ours_over_read_both']:.1f}, "
        f"error {found['error']:.1e}"
    )


def main() -> None:
    """Measures, prints and writes `results/ranking.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-100m", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--only-memory", type=int, metavar="NUM_WEIGHTS", help="print the peak extra bytes")
    arguments = parser.parse_args()
    if arguments.only_memory is not None:
        print(measure_memory(arguments.only_memory))
        return
    print(describe_machine())
    num_measured = 10_000_000
    extra = int(call_in_new_process(__file__, "--only-memory", str(num_measured)))
    snapshots = 2 * 2 * num_measured
    print(f"10 M: {extra / 1e6:.1f} MB extra at most, {snapshots / 1e6:.0f} of it the snapshots")
    tied = compare_tied()
    compared = [compare(num_measured, dtype, arguments.repeats) for dtype in (torch.float32, torch.bfloat16)]
    if not arguments.without_100m:
        compared.append(compare(10 * num_measured, torch.float32, 1))
    memory = {"num_weights": num_measured, "peak_extra_bytes": extra, "of_these_snapshots": snapshots}
    print(write_results("ranking", {"seed": SEED, "compared": compared, "tied": tied, "memory": memory}))


if __name__ == "__main__":
    main()

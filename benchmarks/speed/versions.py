"""Times public functions of this checkout beside those of another one, call by call in turns.

Run with `python -m benchmarks.speed.versions OTHER`, where OTHER is a checkout of another commit; a few minutes on two
cores. Each version computes in a process of its own, one thread each; while one computes, the other waits.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

import lottery_tickets as lt

Case = Callable[[], Callable[[], object]]
ROOT: Final = Path(__file__).parent.parent.parent
BATCHES: Final = 8
READY: Final = "ready"
# Freed memory stays with the process. Else page faults of torch's own temporaries, up to 20 % of a training's time,
# depend on what happens to lie at the end of the heap.
KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}


def make_model() -> nn.Sequential:
    """Returns a convolution and three linear layers, 1.7 M weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def make_data() -> list[tuple[Tensor, Tensor]]:
    """Returns batches of 32 random images with labels."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(32 * BATCHES, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (32 * BATCHES,), generator=generator)
    return list(zip(inputs.split(32), labels.split(32), strict=True))


def select(dtype: torch.dtype, scope: str) -> Case:
    """Returns the case of a mask of 20 M weights in four layers."""

    def prepare() -> Callable[[], object]:
        generator = torch.Generator().manual_seed(0)
        scores = {str(place): torch.randn(5000, 1000, generator=generator).to(dtype) for place in range(4)}
        return lambda: lt.create_importance_mask(scores, 0.9, scope=scope)

    return prepare


def train_held() -> Callable[[], object]:
    """Prepares SGD steps of a model that holds a mask."""
    model, data = make_model(), make_data()
    lt.hold_mask(model, lt.create_magnitude_mask(model, 0.9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        for inputs, labels in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return step


def check_early_bird() -> Callable[[], object]:
    """Prepares a check of 1.7 M weights that have moved."""
    model = make_model()
    watcher = lt.EarlyBirdWatcher(model, target_sparsity=0.7, check_steps=1)
    steps = iter(range(1, 10**6))

    def check() -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=1e-3)
        watcher.observe(model, next(steps), loss=1.0)

    return check


def walk_line() -> Callable[[], object]:
    """Prepares the errors along the line between two networks."""
    model, data = make_model(), make_data()[:2]
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    second = {name: tensor + 0.01 for name, tensor in first.items()}
    return lambda: lt.compute_linear_connectivity(model, data, first, second, num_points=9)


def with_model(function: Callable[[nn.Module, list[tuple[Tensor, Tensor]]], object]) -> Case:
    """Returns the case of a function of a model and data."""

    def prepare() -> Callable[[], object]:
        model, data = make_model(), make_data()
        return lambda: function(model, data)

    return prepare


CASES: Final[dict[str, Case]] = {
    "mask, 20 M float32, global": select(torch.float32, "global"),
    "mask, 20 M float32, by layer": select(torch.float32, "layer"),
    "mask, 20 M float32, by row": select(torch.float32, "row"),
    "mask, 20 M bfloat16, global": select(torch.bfloat16, "global"),
    "training with a held mask": train_held,
    "early-bird check": check_early_bird,
    "linear connectivity": walk_line,
    "Fisher": with_model(lambda model, data: lt.compute_fisher_importance(model, data, 256)),
    "Taylor": with_model(lambda model, data: lt.compute_taylor_importance(model, data, 256)),
    "Wanda": with_model(lambda model, data: lt.compute_wanda_importance(model, data, 128)),
    "SynFlow": with_model(lambda model, _: lt.compute_synflow_importance(model, (1, 28, 28), 0.9, 10)),
    "landscape": with_model(lambda model, data: lt.compute_loss_landscape(model, data[:2], grid_points=5)),
    "quality": with_model(
        lambda model, data: lt.compute_lottery_ticket_quality(model, lt.create_magnitude_mask(model, 0.5), data)
    ),
    "robustness": with_model(lambda model, data: lt.compute_pruning_robustness(model, data[0])),
    "iterative magnitude pruning": with_model(
        lambda model, data: lt.compute_iterative_magnitude_pruning(
            model, data, 0.5, train=True, num_epochs=1, control_levels="none"
        )
    ),
    "early-bird tickets": with_model(
        lambda model, data: lt.compute_early_bird_tickets(model, data, max_epochs=3, check_interval=1)
    ),
}


class Version:
    """A process that computes one case with the library of one checkout, a call a word.

    Args:
        checkout: Whose `src` is imported.
        case: A name of `CASES`.
    """

    def __init__(self, checkout: Path, case: str) -> None:
        environment = {**os.environ, **KEEP_MEMORY, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.versions", "--case", case]
        self.process = subprocess.Popen(  # noqa: S603 - ours
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == f"{READY} {checkout / 'src'}", "the process must import the library of its checkout"

    def time(self) -> float:
        """Returns the seconds of one call."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._read())

    def stop(self) -> None:
        """Ends the process."""
        self.process.communicate()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def serve(case: str) -> None:
    """Computes one case whenever a line comes in, and prints the seconds it took."""
    torch.set_num_threads(1)
    function = CASES[case]()
    function()
    print(READY, Path(lt.__file__).parent.parent, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        function()
        print(time.perf_counter() - start, flush=True)


def compare(case: str, other: Path, turns: int) -> dict[str, float]:
    """Returns the least and the median seconds of both versions, and the ratio of this one to the other."""
    versions = {"this": Version(ROOT, case), "other": Version(other, case)}
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    for turn in range(turns):
        for name in sorted(versions, reverse=turn % 2 == 1):
            seconds[name].append(versions[name].time())
    for version in versions.values():
        version.stop()
    ratios = [this / that for this, that in zip(seconds["this"], seconds["other"], strict=True)]
    return {
        **{f"{name}_min_seconds": min(times) for name, times in seconds.items()},
        **{f"{name}_median_seconds": statistics.median(times) for name, times in seconds.items()},
        "ratio_of_minima": min(seconds["this"]) / min(seconds["other"]),
        "median_ratio": statistics.median(ratios),
    }


def main() -> None:
    """Compares all cases, prints ratios and writes `versions.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--case", choices=CASES)
    arguments = parser.parse_args()
    if arguments.case:
        serve(arguments.case)
        return
    from benchmarks.common import find_commit, write_results  # noqa: PLC0415 - it imports what another version may not have

    other = arguments.other.resolve()
    found = {}
    for case in CASES:
        found[case] = compare(case, other, arguments.turns)
        ratios = found[case]["ratio_of_minima"], found[case]["median_ratio"]
        print(
            f"{case:32} {1e3 * found[case]['this_min_seconds']:9.1f} ms  {ratios[0]:.3f}  {ratios[1]:.3f}", flush=True
        )
    write_results("versions", {"other": find_commit(other), "turns": arguments.turns, "cases": found})


if __name__ == "__main__":
    main()

"""What a Fisher diagonal of one batch costs, in plain forward and backward passes, on CNNs: verification included.

The first batch is verified while it is added: of one of its samples each gradient is computed torch's way too, and
where a network holds functions that are not known, in a pass of this sample alone. Beside both stands what cannot be
saved: the forward pass with the gradients of the activations; and a pass of one sample. A ratio is one of the least CPU
times within a process, because other work on the machine only adds, and the median over processes, because the machine
is faster at one time than at another. glibc is told to keep freed memory: else page
faults, up to a fifth of the time, come to one call and not to the other by chance.
Run `python -m benchmarks.speed.fisher_first_batch [OTHER]`; OTHER is the `src` of another checkout, measured in turns
with ours. The figures go to benchmarks/results/fisher_first_batch.json.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.common import ROOT, write_results
from lottery_tickets import compute_fisher_importance
from lottery_tickets.workloads import build_model

BATCH: Final = 16
KEEPING_MEMORY: Final = {"MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
REPEATS: Final = 9
ROUNDS: Final = 5


def _convolve(channels: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self, channels: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.is_residual = stride == 1 and channels == outputs
        widen = [_convolve(channels, inner, 1)] if expansion > 1 else []
        narrow = [nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*widen, _convolve(inner, inner, 3, stride, inner), *narrow)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the block's outputs."""
        outputs: Tensor = self.body(inputs)
        return inputs + outputs if self.is_residual else outputs


def _classify(parts: list[nn.Module], channels: int) -> nn.Module:
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def build_mobilenet_v1() -> nn.Module:
    """Returns MobileNetV1 for images of 32 x 32: 3.2 M weights."""
    parts: list[nn.Module] = [_convolve(3, 32, 3)]
    channels = 32
    for outputs, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2)]:
        parts += [_convolve(channels, channels, 3, stride, channels), _convolve(channels, outputs, 1)]
        channels = outputs
    return _classify(parts, channels)


def build_mobilenet_v2(first_stride: int) -> nn.Module:
    """Returns MobileNetV2: 2.2 M weights."""
    parts: list[nn.Module] = [_convolve(3, 32, 3, first_stride)]
    channels = 32
    rows = [(1, 16, 1, 1), (6, 24, 2, first_stride), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)]
    for expansion, outputs, repeats, stride in [*rows, (6, 320, 1, 1)]:
        for number in range(repeats):
            parts.append(InvertedResidual(channels, outputs, stride if number == 0 else 1, expansion))
            channels = outputs
    return _classify([*parts, _convolve(320, 1280, 1)], 1280)


class ConvNextBlock(nn.Module):
    """The block of ConvNeXt (Liu et al. 2022), its norm over all channels and positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        wide = nn.Conv2d(channels, 4 * channels, 1)
        self.body = nn.Sequential(
            depthwise, nn.GroupNorm(1, channels), wide, nn.GELU(), nn.Conv2d(4 * channels, channels, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the block's outputs."""
        outputs: Tensor = inputs + self.body(inputs)
        return outputs


def build_convnext() -> nn.Module:
    """Returns a network of ConvNeXt's blocks: 1.4 M weights."""
    parts: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), *(ConvNextBlock(96) for _ in range(3))]
    parts += [nn.Conv2d(96, 192, 2, 2), *(ConvNextBlock(192) for _ in range(3))]
    return _classify(parts, 192)


def build_vgg() -> nn.Module:
    """Returns a plain network of 3 x 3 convolutions: 4.7 M weights."""
    parts: list[nn.Module] = []
    channels = 3
    for width in (64, 128, 256, 512):
        parts += [_convolve(channels, width, 3), _convolve(width, width, 3), nn.MaxPool2d(2)]
        channels = width
    return _classify(parts, channels)


def build_resnet_20() -> nn.Module:
    """Returns ResNet-20: 0.27 M weights."""
    return build_model("resnet-20", input_shape=(3, 32, 32), num_classes=10, generator=torch.Generator().manual_seed(0))


CASES: Final[dict[str, tuple[Callable[[], nn.Module], int]]] = {
    "MobileNetV1, 32 x 32": (build_mobilenet_v1, 32),
    "MobileNetV2, 32 x 32": (lambda: build_mobilenet_v2(1), 32),
    "MobileNetV2, 96 x 96": (lambda: build_mobilenet_v2(2), 96),
    "ConvNeXt-like, 64 x 64": (build_convnext, 64),
    "VGG-like, 32 x 32": (build_vgg, 32),
    "ResNet-20, 32 x 32": (build_resnet_20, 32),
}


@contextlib.contextmanager
def differentiating_activations(model: nn.Module) -> Iterator[None]:
    """Within the block no weight has a gradient, but the outputs of the first convolution, and all behind them."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    hook = first.register_forward_hook(lambda _, __, outputs: outputs.requires_grad_())
    model.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        model.requires_grad_()
        hook.remove()


def measure_case(name: str) -> dict[str, float]:
    """Returns the least CPU seconds of a plain pass, of its parts, and of a Fisher diagonal of 1 and 3 batches."""
    torch.manual_seed(0)
    build, size = CASES[name]
    model = build().eval()
    batches = [(torch.randn(BATCH, 3, size, size), torch.randint(10, (BATCH,))) for _ in range(3)]

    def run_plain() -> None:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()

    def run_activations() -> None:
        with differentiating_activations(model):
            nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()

    def run_single() -> None:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(batches[0][0][:1]), batches[0][1][:1]).backward()

    def run_fisher(num_batches: int) -> None:
        compute_fisher_importance(model, batches[:num_batches], BATCH * num_batches)

    calls: dict[str, Callable[[], None]] = {
        "plain": run_plain,
        "activations": run_activations,
        "single": run_single,
        "first": lambda: run_fisher(1),
        "three": lambda: run_fisher(3),
    }
    times: dict[str, list[float]] = {key: [] for key in calls}
    for number in range(REPEATS + 1):
        for key, call in calls.items():
            seconds = _time_cpu(call)
            if number:  # the first warms up
                times[key].append(seconds)
    return {key: min(seconds) for key, seconds in times.items()}


def _count_plain_passes(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Returns how many plain passes the first batch costs, each later one, and the parts that cannot be saved."""
    counts = [
        {
            **{key: seconds[key] / seconds["plain"] for key in ("first", "activations", "single")},
            "later": (seconds["three"] - seconds["first"]) / 2 / seconds["plain"],
        }
        for seconds in rounds
    ]
    return {key: statistics.median(count[key] for count in counts) for key in counts[0]}


def _time_cpu(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Measures this checkout, and in turns with it another where one is named, and writes the figures."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(measure_case(sys.argv[2])))
        return
    sources = {"this": str(ROOT / "src"), **({"before": str(Path(sys.argv[1]).resolve())} if sys.argv[1:] else {})}
    figures: dict[str, Any] = {}
    all_rounds: dict[str, Any] = {}
    for name in CASES:
        rounds: dict[str, list[dict[str, float]]] = {label: [] for label in sources}
        for _ in range(ROUNDS):
            for label, source in sources.items():
                environment = {**os.environ, **KEEPING_MEMORY, "PYTHONPATH": f"{source}:{ROOT}"}
                command = [sys.executable, "-m", "benchmarks.speed.fisher_first_batch", "--case", name]
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
                rounds[label].append(json.loads(done.stdout))
        figures[name] = {label: _count_plain_passes(found) for label, found in rounds.items()}
        all_rounds[name] = rounds
        print(name, json.dumps(figures[name]), flush=True)
    setting = {"threads": 1, "environment": KEEPING_MEMORY, "samples_a_batch": BATCH}
    write_results("fisher-first-batch", {**setting, "plain_passes": figures, "rounds": all_rounds})


if __name__ == "__main__":
    main()

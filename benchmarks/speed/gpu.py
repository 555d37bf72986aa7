"""What the library does on a GPU: whether it finds what it finds on a CPU, and what it costs beside plain training.

`python -m benchmarks.speed.gpu` measures all sections on the first GPU, `python -m benchmarks.speed.gpu SECTION ...`
some; what one has measured is written at once to `benchmarks/results/gpu.json`, beside what others have. `--tiny`
runs all on the CPU and writes nothing. The 14-billion-parameter shape has `early_bird_14b`.

The loops in Triton are a section, "kernels", of their own (`on_gpu.kernels`), beside those of plain torch.

Floors: a mask reads each weight once; a check runs the probe forward once and looks at each magnitude once; a Fisher
diagonal is one forward and backward pass and, for each sample, its gradient squared and added to the sums.
"""

import argparse
import copy
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.common import RESULTS, read_results, write_results
from benchmarks.speed.early_bird_probe import CASES as WATCHED
from benchmarks.speed.early_bird_probe import measure as measure_watch
from benchmarks.speed.fisher_first_batch import CASES as CONVOLUTIONS
from benchmarks.speed.on_gpu.equality import SEED, TINY, list_equality_cases, measure_equality
from benchmarks.speed.on_gpu.kernels import measure_kernels
from benchmarks.speed.on_gpu.large import measure_large_masks
from benchmarks.speed.on_gpu.sharded import measure_sharded
from benchmarks.speed.on_gpu.two_of_four import measure_two_of_four
from lottery_tickets import (
    EarlyBirdWatcher,
    Probe,
    compute_fisher_importance,
    create_magnitude_mask,
    create_random_mask,
    hold_mask,
)
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.workloads import build_model
from unified_model_analysis import UnifiedConfig, UnifiedModelAnalyzer

REPEATS: Final = 20
HALF_BILLION: Final[dict[str, Any]] = {  # the shape of Qwen2.5-0.5B
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


class Machine:
    """Where things are measured, and how large.

    Args:
        is_tiny: Whether to try the code on a CPU.
    """

    def __init__(self, *, is_tiny: bool) -> None:
        if not is_tiny and not torch.cuda.is_available():
            raise SystemExit("a GPU must be there to be measured, but torch finds none; --tiny tries the code without")
        self.is_tiny = is_tiny
        self.device = torch.device("cpu" if is_tiny else "cuda")

    def describe(self) -> dict[str, Any]:
        """Returns the name and the memory of the device."""
        if self.is_tiny:
            return {"name": "cpu"}
        properties = torch.cuda.get_device_properties(0)
        return {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}

    def wait(self) -> None:
        """Waits until the device has done all that it was given."""
        if not self.is_tiny:
            torch.cuda.synchronize()

    def time(self, function: Callable[[], object]) -> float:
        """Returns the wall-clock seconds of one call, to its end on the device."""
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start

    def take_turns(
        self, calls: Mapping[str, Callable[[], object]], repeats: int = REPEATS
    ) -> dict[str, dict[str, float]]:
        """Returns the least and the median seconds of each call, called in turns; the first is not counted."""
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(2 if self.is_tiny else repeats + 1):
            for name, call in calls.items():
                elapsed = self.time(call)
                if number:
                    seconds[name].append(elapsed)
        return {name: {"least": min(held), "median": statistics.median(held)} for name, held in seconds.items()}

    def measure_peak(self, function: Callable[[], object]) -> int | None:
        """Returns by how many bytes of the device a call goes beyond what is held before; None on a CPU."""
        if self.is_tiny:
            function()
            return None
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        self.wait()
        return torch.cuda.max_memory_allocated() - before


def build_qwen(machine: Machine, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Returns a language model of random weights, of half a billion parameters."""
    torch.manual_seed(SEED)
    with machine.device:
        model: nn.Module = Qwen2ForCausalLM(Qwen2Config(**(TINY if machine.is_tiny else HALF_BILLION), use_cache=False))
    return model.to(dtype)


def make_tokens(machine: Machine, *shape: int) -> dict[str, Tensor]:
    """Returns a batch of random tokens on the device."""
    return {"input_ids": torch.randint(500, shape, device=machine.device)}


def measure_masks(machine: Machine) -> dict[str, Any]:
    """Returns what a magnitude mask of many weights costs beside reading them once."""
    num, size = (2, 1 << 16) if machine.is_tiny else (16, 1 << 26)
    found: dict[str, Any] = {"num_weights": num * size}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(SEED)
        weights = {
            f"{i}.weight": torch.randn(size >> 12, 1 << 12, device=machine.device, dtype=dtype) for i in range(num)
        }
        found[str(dtype)] = prune(machine, weights)
    return found


def prune(machine: Machine, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns seconds of a mask and of one read of all weights, and the bytes that the mask needs for a while."""

    def make_mask() -> object:
        return create_magnitude_mask(weights, 0.5)

    seconds = machine.take_turns({"mask": make_mask, "read": lambda: read(weights)}, repeats=5)
    return {
        **seconds,
        "over_read": seconds["mask"]["median"] / seconds["read"]["median"],
        "extra_bytes": machine.measure_peak(make_mask),
        "weight_bytes": sum(weight.nbytes for weight in weights.values()),
    }


def read(weights: Mapping[str, Tensor]) -> None:
    """Looks at each weight once."""
    for weight in weights.values():
        weight.abs().sum()


def measure_holding(machine: Machine) -> dict[str, Any]:
    """Returns what holding a mask adds to a training step."""
    shapes = {"lenet-300-100": ((1, 28, 28), 60), "resnet-20": ((3, 32, 32), 128)}
    found: dict[str, Any] = {}
    for name, (shape, size) in shapes.items():
        generator = torch.Generator().manual_seed(SEED)
        bare = build_model(name, input_shape=shape, num_classes=10, generator=generator).to(machine.device)
        batch = (torch.randn(size, *shape), torch.randint(10, (size,)))
        found[name] = hold_and_step(machine, bare, tuple(part.to(machine.device) for part in batch))
    found["qwen2, 0.5 B, bfloat16"] = hold_and_step(machine, build_qwen(machine), make_tokens(machine, 8, 512))
    return found


def hold_and_step(machine: Machine, bare: nn.Module, batch: Any) -> dict[str, Any]:  # noqa: ANN401 - a batch
    """Returns seconds of ten steps bare, held, and masked by hand with float masks."""
    held, by_hand = copy.deepcopy(bare), copy.deepcopy(bare)
    mask = create_random_mask(bare, 0.79, seed=SEED)
    hold_mask(held, mask)
    names = dict(by_hand.named_parameters())
    masks = [(names[name], mask[name].to(machine.device, names[name].dtype)) for name in mask]

    def make(model: nn.Module, after: Callable[[], None] = lambda: None) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)

        def run() -> None:
            for _ in range(10):
                optimizer.zero_grad()
                compute_loss(model, batch).backward()
                optimizer.step()
                after()

        return run

    def multiply() -> None:
        with torch.no_grad():
            for parameter, kept in masks:
                parameter.mul_(kept)

    runs = {"bare": make(bare), "held": make(held), "by hand": make(by_hand, multiply)}
    seconds = machine.take_turns(runs, repeats=7)
    least = {name: times["least"] for name, times in seconds.items()}
    adds = {name: least[name] / least["bare"] - 1 for name in ("held", "by hand")}
    return {"seconds_of_10_steps": seconds, "adds": adds}


def measure_watching(machine: Machine) -> dict[str, Any]:
    """Returns what checks with a probe cost beside 100 steps."""
    rows = []
    for name, make in WATCHED.items():
        model, make_batch, batch_size, _ = make()
        num_steps = 5 if machine.is_tiny else 100 if name.startswith("LeNet") else 20
        row = measure_watch(name, model, make_batch, batch_size, num_steps, machine.device)
        rows.append({key: value for key, value in row.items() if key != "seconds"})
        print(rows[-1], flush=True)
    return {"steps_a_check": 100, "rows": rows, "half_billion": watch_half_billion(machine)}


def watch_half_billion(machine: Machine) -> dict[str, Any]:
    """Returns a check of half a billion parameters beside a step, in float32 with AdamW."""
    model = build_qwen(machine, torch.float32)
    batch = make_tokens(machine, 8, 512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    probe = Probe([make_tokens(machine, 8, 512) for _ in range(8)])
    watchers: list[EarlyBirdWatcher] = []
    start = machine.time(lambda: watchers.append(EarlyBirdWatcher(model, probe=probe)))
    (watcher,) = watchers

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(machine.device.type, torch.bfloat16):
            compute_loss(model, batch).backward()
        optimizer.step()

    seconds = machine.take_turns({"step": step, "check": lambda: watcher.check(model, 1, {})}, repeats=3)
    return {
        **seconds,
        "start_seconds": start,
        "num_probed": 64,
        "check_over_100_steps": seconds["check"]["median"] / seconds["step"]["median"] / 100,
    }


def measure_fisher(machine: Machine) -> dict[str, Any]:
    """Returns what a Fisher diagonal costs in plain passes, for one batch and for each later one."""
    found = {}
    for name, (build, size) in CONVOLUTIONS.items():
        torch.manual_seed(SEED)
        batches = [(torch.randn(16, 3, size, size), torch.randint(10, (16,))) for _ in range(5)]
        there = [tuple(part.to(machine.device) for part in batch) for batch in batches]
        found[f"{name}, 16 images"] = count_passes(machine, build().eval().to(machine.device), there, 16)
    tokens = [make_tokens(machine, 8, 512) for _ in range(5)]
    for dtype in (torch.float32, torch.bfloat16):
        model = build_qwen(machine, dtype)
        found[f"qwen2, 0.5 B, {dtype}, 8 x 512 tokens"] = count_passes(machine, model.eval(), tokens, 8)
    return found


def count_passes(machine: Machine, model: nn.Module, batches: list[Any], size: int) -> dict[str, Any]:
    """Returns the plain passes that the first and each later batch cost, and the bytes beside the model."""

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        compute_loss(model, batches[0]).backward()

    def score(num_batches: int) -> None:
        compute_fisher_importance(model, batches[:num_batches], size * num_batches, use_mixed_precision=False)

    seconds = machine.take_turns({"plain": plain, "first": lambda: score(1), "five": lambda: score(5)}, repeats=3)
    least = {name: times["least"] for name, times in seconds.items()}
    model.zero_grad(set_to_none=True)
    print(least, flush=True)
    return {
        "seconds": seconds,
        "first": least["first"] / least["plain"],
        "later": (least["five"] - least["first"]) / 4 / least["plain"],
        "extra_bytes": machine.measure_peak(lambda: score(2)),
        "plain_extra_bytes": machine.measure_peak(plain),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def measure_analysis(machine: Machine) -> dict[str, Any]:
    """Returns how long each analysis of one model was expected to take, and took."""
    found: dict[str, Any] = {}
    name, lenet, images = next(list_equality_cases())
    cases: list[tuple[str, nn.Module, list[Any]]] = [(name, lenet, images * 8)]
    cases.append(("qwen2, 0.5 B, bfloat16", build_qwen(machine), [make_tokens(machine, 4, 256) for _ in range(4)]))
    for name, model, batches in cases:
        found[name] = analyze(machine, model.to(machine.device), batches)
        print(name, found[name], flush=True)
    return found


def analyze(machine: Machine, model: nn.Module, batches: list[Any]) -> dict[str, Any]:
    """Returns how long all analyses of a model take, and each."""
    results: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        config = UnifiedConfig()
        config.output_dir = str(Path(folder) / "out")
        config.generate_report, config.progress = False, False
        analyzer = UnifiedModelAnalyzer(config, tell=lambda _: None)
        seconds = machine.time(lambda: results.append(analyzer.analyze(model, batches)))
    return {"seconds": seconds, "analyses": results[0]["analyses"]}


SECTIONS: Final[dict[str, Callable[[Machine], dict[str, Any]]]] = {
    "equality": lambda machine: measure_equality(machine.device),
    "kernels": lambda machine: measure_kernels(machine.device, machine.take_turns, is_tiny=machine.is_tiny),
    "masks": measure_masks,
    "masks, 14.77 B": lambda machine: measure_large_masks(
        machine.device, machine.take_turns, machine.measure_peak, is_tiny=machine.is_tiny
    ),
    "2:4": lambda machine: {} if machine.is_tiny else measure_two_of_four(machine.device, machine.take_turns),
    "sharded": lambda machine: measure_sharded(machine.device),
    "holding": measure_holding,
    "watching": measure_watching,
    "fisher": measure_fisher,
    "analysis": measure_analysis,
}


def main() -> None:
    """Measures some sections, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    machine = Machine(is_tiny=arguments.tiny)
    for name in arguments.sections:
        start = time.perf_counter()
        found = SECTIONS[name](machine)
        print(name, f"{time.perf_counter() - start:.0f} s", found, flush=True)
        if not arguments.tiny:
            held = read_results("gpu") if (RESULTS / "gpu.json").exists() else {}
            held.pop("machine", None)
            devices = {**held.pop("devices", {}), name: machine.describe()}
            write_results("gpu", {**held, "devices": devices, name: found})


if __name__ == "__main__":
    main()

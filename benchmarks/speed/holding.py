"""What holding a mask costs a training step, and how our loop compares with one written by hand.

Floor: a held step must touch the gradients once and the weights twice, before they are used and after they are written.
Turns are short, so that a busy machine hurts bare and held alike.
Run `python -m benchmarks.speed.holding [OTHER]`; OTHER is the `src` of another checkout, whose cost of holding is
measured in turns with ours. The figures go to benchmarks/results/holding.json.
"""

import copy
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from benchmarks.common import ROOT, take_turns, write_results
from lottery_tickets import Mask, create_random_mask, hold_mask
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.training.plain_loop import train_steps
from lottery_tickets.workloads import build_model, paper_recipe

DENSITY = 0.21
SEED = 0
ROUNDS: Final = 2


def main() -> None:
    """Measures and writes the figures."""
    if sys.argv[1:] == ["--print"]:
        print(json.dumps(measure_all()))
        return
    figures = measure_all()
    if sys.argv[1:]:
        sources = {"before": str(Path(sys.argv[1]).resolve()), "this": str(ROOT / "src")}
        costs: dict[str, dict[str, list[float]]] = {label: {name: [] for name in figures} for label in sources}
        for _ in range(ROUNDS):
            for label, source in sources.items():
                for name, found in _measure_elsewhere(source).items():
                    costs[label][name].append(found["cost_of_holding"])
        figures["cost_of_holding_in_turns"] = costs
    write_results("holding", {"seed": SEED, "threads": 1, "density": DENSITY, **figures})


def _measure_elsewhere(source: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed.holding", "--print"]
    environment = {**os.environ, "PYTHONPATH": f"{source}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all() -> dict[str, Any]:
    """Returns the figures of both workloads."""
    torch.set_num_threads(1)  # as every training of an experiment
    torch.manual_seed(SEED)
    return {
        "lenet-300-100": measure_workload("lenet-300-100", (1, 28, 28), batch_size=60, num_steps=20, repeats=100),
        "resnet-20": measure_workload("resnet-20", (3, 32, 32), batch_size=128, num_steps=1, repeats=15),
    }


def measure_workload(
    name: str, input_shape: tuple[int, int, int], *, batch_size: int, num_steps: int, repeats: int
) -> dict[str, Any]:
    """Returns medians of one model: seconds a step bare, held, and in our loop, taken in turns, with their ratios."""
    generator = torch.Generator().manual_seed(SEED)
    dense = build_model(name, input_shape=input_shape, num_classes=10, generator=generator)
    mask = create_random_mask(dense, 1 - DENSITY, seed=SEED)
    inputs, targets = torch.randn(4 * batch_size, *input_shape), torch.randint(10, (4 * batch_size,))
    batches = TensorBatches(inputs, targets, batch_size, SEED)
    held, ours = copy.deepcopy(dense), copy.deepcopy(dense)
    hold_mask(held, mask)
    hold_mask(ours, mask)
    runs: dict[str, Callable[[], None]] = {
        "bare": bare_loop(dense, name, batches, num_steps),
        "bare, masked by hand": bare_loop(copy.deepcopy(dense), name, batches, num_steps, mask),
        "held": bare_loop(held, name, batches, num_steps),
        "our loop, held": our_loop(ours, name, batches, num_steps),
    }
    seconds = {label: [value / num_steps for value in values] for label, values in take_turns(runs, repeats).items()}
    medians = {label: statistics.median(values) for label, values in seconds.items()}
    pairs = list(zip(seconds["held"], seconds["bare"], strict=True))
    speeds = list(zip(seconds["bare, masked by hand"], seconds["our loop, held"], strict=True))
    figures = {
        "median_seconds_a_step": medians,
        "cost_of_holding": statistics.median(held / bare - 1 for held, bare in pairs),
        "speed_of_our_loop": statistics.median(by_hand / ours for by_hand, ours in speeds),
    }
    print(f"{name}: holding costs {figures['cost_of_holding']:.1%} of a step; our loop runs at "
          f"{figures['speed_of_our_loop']:.1%} of the speed of a loop written by hand, masking included")  # fmt: skip
    return figures


def make_optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """Returns the optimizer of the model's recipe, fused."""
    recipe = paper_recipe(name)
    make: Any = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[recipe.optimizer]
    optimizer: torch.optim.Optimizer = make(model.parameters(), fused=True, **recipe.optimizer_arguments)
    return optimizer


def bare_loop(
    model: nn.Module, name: str, batches: TensorBatches, num_steps: int, mask: Mask | None = None
) -> Callable[[], None]:
    """Returns the loop one writes by hand; with a mask it multiplies gradients and weights by it, as one does."""
    optimizer = make_optimizer(model, name)
    source: Iterator[tuple[torch.Tensor, torch.Tensor]] = batches.from_step(0)
    masks = {} if mask is None else {p: mask[n].float() for n, p in model.named_parameters() if n in mask}

    def run() -> None:
        model.train()
        for _ in range(num_steps):
            inputs, targets = next(source)
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            with torch.no_grad():
                for parameter, kept in masks.items():
                    assert parameter.grad is not None
                    parameter.grad.mul_(kept)
            optimizer.step()
            with torch.no_grad():
                for parameter, kept in masks.items():
                    parameter.mul_(kept)
            optimizer.zero_grad()

    return run


def our_loop(model: nn.Module, name: str, batches: TensorBatches, num_steps: int) -> Callable[[], None]:
    """Returns the default trainer over the same steps."""
    optimizer = make_optimizer(model, name)
    source = batches.from_step(0)

    def run() -> None:
        train_steps(
            model,
            source,
            optimizer,
            first_step=0,
            num_steps=num_steps,
            lr_factor=lambda _: 1.0,
            after_step=lambda _: None,
        )

    return run


if __name__ == "__main__":
    main()

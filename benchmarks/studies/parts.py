"""What studies share: short recipes on Fashion-MNIST, processes, parts kept in a folder, intervals, rates, overlaps."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from scipy import stats

from lottery_tickets import Mask
from lottery_tickets._core.files import read_json, write_json
from lottery_tickets.masks.common_weights import Overlap, overlay
from lottery_tickets.workloads.recipes import Recipe
from statistical_report_generator.inference.intervals import compute_t_interval


@final
@dataclass(frozen=True)
class ShortRecipe:
    """How a network is trained on Fashion-MNIST.

    Attributes:
        model: Of the workload.
        num_steps: Of a whole training.
        batch_size: Images a step.
        learning_rate: At first.
        num_replicates: Independent repetitions.
        optimizer: "sgd" (momentum 0.9, weight decay 1e-4, a tenth of the rate for the last fifth) or "adam".
    """

    model: str
    num_steps: int
    batch_size: int
    learning_rate: float
    num_replicates: int
    optimizer: str = "sgd"

    def make_recipe(self, other: Recipe) -> Recipe:
        """Returns the recipe that trains so, evaluates at the end alone, and prunes as another one."""
        is_sgd = self.optimizer == "sgd"
        return replace(
            other,
            optimizer=self.optimizer,
            optimizer_arguments={"lr": self.learning_rate}
            | ({"momentum": 0.9, "weight_decay": 1e-4} if is_sgd else {}),
            batch_size=self.batch_size,
            num_steps=self.num_steps,
            evaluation_interval=self.num_steps,
            lr_milestones=(0.8,) if is_sgd else (),
            lr_decay=0.1,
            warmup_steps=0,
        )


def run_in_processes(function: Callable[[Any], Any], jobs: Iterable[Any], num: int | None = None) -> list[Any]:
    """Returns what a function finds for each job, in processes of one thread each; as many as cores by default."""
    with ProcessPoolExecutor(num, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, jobs))


def keep(path: Path, compute: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON
    """Returns what a file holds; where there is none, what `compute` gives is written there first."""
    if not path.exists():
        write_json(path, compute())
    return read_json(path)


def sum_up(values: Sequence[float]) -> dict[str, Any]:
    """Returns the mean over replicates with its interval, as a dict."""
    return asdict(compute_t_interval(values))


def compute_rate(num: int, of: int) -> dict[str, float]:
    """Returns how often something happened, with the exact 95 % interval of Clopper and Pearson."""
    interval = stats.binomtest(num, of).proportion_ci(method="exact")
    return {"rate": num / of, "low": float(interval.low), "high": float(interval.high)}


def overlay_masks(first: Mask, second: Mask) -> list[Overlap]:
    """Returns what two masks share in each layer."""
    sizes = {name: shape.numel() for name, shape in first.shapes.items()}
    return list(overlay(first.bits, second.bits, sizes).values())

"""Do SGD and AdamW draw the same ticket? Overlaps of their masks after equal training, beside chance and a second seed.

`python -m benchmarks.studies.early_bird_optimizers` trains LeNet-300-100 on Fashion-MNIST and a small transformer on
text, each from one initialisation with both optimizers, and writes `benchmarks/results/early_bird_optimizers.json`.
What overlaps are compared with: the same optimizer on another order of the data.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from benchmarks.common import write_results
from benchmarks.studies.parts import overlay_masks, sum_up
from benchmarks.studies.small_transformer import build_transformer, load_bytes
from lottery_tickets import Mask, create_magnitude_mask
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.masks.common_weights import measure_distance
from lottery_tickets.workloads import load_workload

SPARSITIES: Final = (0.5, 0.7, 0.9)
Optimizers = Mapping[str, Callable[[nn.Module], torch.optim.Optimizer]]


def main() -> None:
    """Trains, compares, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=5)
    num_replicates = parser.parse_args().replicates
    torch.set_num_threads(1)
    studies = {"LeNet-300-100, Fashion-MNIST": train_lenets, "small transformer, text": train_transformers}
    found = {
        name: summarise([train(replicate) for replicate in range(num_replicates)]) for name, train in studies.items()
    }
    for name, summary in found.items():
        for row in summary["overlaps"]:
            print(name, row["pair"], row["sparsity"], *(round(row[k]["mean"], 4) for k in ("raw", "kept", "corrected")))
    print(write_results("early_bird_optimizers", {"num_replicates": num_replicates, "studies": found}))


def train_lenets(replicate: int) -> dict[str, Any]:
    """Returns one replicate of LeNet, 5 epochs of batches of 128."""
    workload = load_workload("fashion-mnist", "lenet-300-100")
    optimizers: Optimizers = {
        "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4),
        "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1.2e-3),
    }

    def build() -> nn.Module:
        return workload.build_model(torch.Generator().manual_seed(derive_seed(1, "lenet", replicate)))

    def batches(order: int) -> Iterator[Any]:
        data = workload.data
        return TensorBatches(data.train_inputs, data.train_targets, 128, derive_seed(1, replicate, order)).from_step(0)

    return _train_all(build, batches, optimizers, 2150)


def train_transformers(replicate: int) -> dict[str, Any]:
    """Returns one replicate of the small transformer, 150 batches of 16 x 128 bytes."""
    optimizers: Optimizers = {
        "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    }

    def batches(order: int) -> Iterator[Any]:
        return load_bytes(derive_seed(2, replicate, order), batch_size=16, num_tokens=128)

    return _train_all(lambda: build_transformer(replicate), batches, optimizers, 150)


def _train_all(
    build: Callable[[], nn.Module], batches: Callable[[int], Iterator[Any]], optimizers: Optimizers, num_steps: int
) -> dict[str, Any]:
    masks: dict[str, dict[float, Mask]] = {"start": _draw(build())}
    losses = {}
    for (name, make_optimizer), order in itertools.product(optimizers.items(), range(2)):
        model = build().train()
        optimizer, given = make_optimizer(model), batches(order)
        last: list[float] = []
        for _ in range(num_steps):
            loss = compute_loss(model, next(given))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            last = [*last[-49:], float(loss.detach())]
        run = name + " again" * order
        masks[run], losses[run] = _draw(model), sum(last) / len(last)
    return {"masks": masks, "losses": losses}


def _draw(model: nn.Module) -> dict[float, Mask]:
    return {sparsity: create_magnitude_mask(model, sparsity) for sparsity in SPARSITIES}


def summarise(replicates: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the overlaps of each pair at each sparsity, as intervals over the replicates."""
    pairs = (("SGD", "AdamW"), ("SGD", "SGD again"), ("AdamW", "AdamW again"), ("SGD", "start"), ("AdamW", "start"))
    rows = []
    for first, second in pairs:
        for sparsity in SPARSITIES:
            found = [_compare(r["masks"][first][sparsity], r["masks"][second][sparsity]) for r in replicates]
            intervals = {name: sum_up([figures[name] for figures in found]) for name in found[0]}
            rows.append({"pair": f"{first} and {second}", "sparsity": sparsity, **intervals})
    losses = {name: sum_up([r["losses"][name] for r in replicates]) for name in replicates[0]["losses"]}
    return {"overlaps": rows, "losses": losses}


def _compare(first: Mask, second: Mask) -> dict[str, float]:
    """Returns the share of positions that agree, the share of kept weights that both keep, and that beyond chance."""
    layers = overlay_masks(first, second)
    distance, kept = measure_distance(layers), sum(layer.num_kept[0] for layer in layers)
    both, expected = sum(layer.num_both for layer in layers), sum(layer.expected_both for layer in layers)
    return {
        "raw": 1 - distance.raw,
        "raw_chance": 1 - distance.chance,
        "kept": both / kept,
        "kept_chance": expected / kept,
        "corrected": (both - expected) / (kept - expected),
    }


if __name__ == "__main__":
    main()

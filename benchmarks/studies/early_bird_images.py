"""When early-bird tickets emerge on Fashion-MNIST, and what they are worth retrained beside their controls.

`python -m benchmarks.studies.early_bird_images lenet-300-100` (or `resnet-20`) trains everything, replicate by
replicate in processes of one thread each, and writes `benchmarks/results/early_bird_NAME.json`. What a replicate has
found is kept in the folder given by --folder, so that an interrupted run goes on.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.common import write_results
from lottery_tickets import ConvergenceRule, EarlyBirdWatcher, Mask, hold_mask, reinitialise_, remove_mask, shuffle_mask
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.states import copy_state
from lottery_tickets._core.measuring.evaluating import evaluate_tensors
from lottery_tickets._core.training.plain_loop import train_steps
from lottery_tickets.early_bird.convergence import METHODS, Method
from lottery_tickets.masks.common_weights import measure_distance, overlay
from lottery_tickets.workloads import Workload, load_workload
from statistical_report_generator.inference.intervals import Interval, compute_t_interval


@dataclass(frozen=True)
class Study:
    """How one network is trained; SGD with momentum 0.9, weight decay 1e-4 and a tenth of the rate for the last fifth.

    Attributes:
        name: Of the study.
        model: Of the workload.
        num_steps: Of each training.
        check_steps: From one check to the next.
        batch_size: Images a step.
        learning_rate: At first.
        num_replicates: Independent repetitions.
        num_tested: Test images.
        sparsities: Of the tickets.
    """

    name: str
    model: str
    num_steps: int
    check_steps: int
    batch_size: int
    learning_rate: float
    num_replicates: int
    num_tested: int
    sparsities: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)


STUDIES: Final = {
    study.name: study
    for study in (
        Study("lenet-300-100", "lenet-300-100", 4300, 86, 128, 0.1, 5, 10_000),
        Study("lenet-300-100-by-epoch", "lenet-300-100", 4300, 430, 128, 0.03, 3, 10_000, (0.7, 0.9)),
        Study("resnet-20", "resnet-20", 300, 10, 64, 0.1, 3, 2_000),
    )
}


def main() -> None:
    """Runs one study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--folder", type=Path, default=Path("runs/early-bird"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--note", default="", help="what a reader of the figures must know")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    run = partial(run_replicate, study, arguments.folder)
    with ProcessPoolExecutor(arguments.workers) as pool:
        replicates = list(pool.map(run, range(study.num_replicates)))
    payload = {
        "study": vars(study),
        "note": arguments.note,
        "summaries": summarise(study, replicates),
        "replicates": replicates,
    }
    print(write_results(f"early_bird_{study.name.replace('-', '_')}", payload))


def run_replicate(study: Study, folder: Path, replicate: int) -> dict[str, Any]:
    """Returns one replicate's figures, from its file if it is there."""
    path = folder / f"{study.name}-{replicate}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    torch.set_num_threads(1)
    workload = load_workload("fashion-mnist", study.model)
    seed = derive_seed(0, study.name, replicate)
    model = workload.build_model(torch.Generator().manual_seed(seed))
    start = copy_state(model)
    watchers = {
        (method, sparsity): EarlyBirdWatcher(
            model,
            target_sparsity=sparsity,
            rule=ConvergenceRule(method),
            check_steps=study.check_steps,
        )
        for method in METHODS
        for sparsity in study.sparsities
    }
    drawn: dict[float, tuple[Mask, int, dict[str, Tensor]]] = {}
    dense = train(study, workload, model, seed, after_step=partial(_watch, watchers, drawn))
    trainings = [{"branch": "dense", "sparsity": 0.0, **dense}]
    for sparsity in study.sparsities:
        end_mask = watchers["magnitude_ranking", sparsity].draw_ticket(last=True)
        trainings += run_branches(
            study, workload, start, seed, sparsity=sparsity, drawn=drawn.get(sparsity), end_mask=end_mask
        )
    found = {
        "replicate": replicate,
        "emergences": [_describe(watcher, method, sparsity) for (method, sparsity), watcher in watchers.items()],
        "trainings": trainings,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")
    return found


def run_branches(
    study: Study,
    workload: Workload,
    start: Mapping[str, Tensor],
    seed: int,
    *,
    sparsity: float,
    drawn: tuple[Mask, int, dict[str, Tensor]] | None,
    end_mask: Mask,
) -> list[dict[str, Any]]:
    """Returns the retrained tickets and controls of one sparsity, all on the data order of the dense training."""
    rows = []
    early = drawn[0] if drawn is not None else None
    shuffled = shuffle_mask(early or end_mask, derive_seed(seed, "shuffled", round(100 * sparsity)))
    masks = {"early": early, "end": end_mask, "shuffled": shuffled, "random": shuffled, "continued": early}
    for branch, mask in masks.items():
        if mask is None:
            continue
        model = workload.build_model(torch.Generator().manual_seed(seed))
        model.load_state_dict(dict(start))
        first_step = 0
        if branch == "random":
            reinitialise_(model, derive_seed(seed, "random", round(100 * sparsity)))
        if branch == "continued" and drawn is not None:
            first_step = drawn[1]
            model.load_state_dict(drawn[2])
        hold_mask(model, mask)
        row = train(study, workload, model, seed, first_step=first_step)
        remove_mask(model)
        rows.append({"branch": branch, "sparsity": sparsity, "first_step": first_step, **row})
    if early is not None:
        sizes = {name: shape.numel() for name, shape in early.shapes.items()}
        apart = measure_distance(overlay(early.bits, end_mask.bits, sizes).values())
        rows[0] |= {"distance_to_end": apart.raw, "corrected_distance_to_end": apart.corrected}
    return rows


def train(
    study: Study,
    workload: Workload,
    model: nn.Module,
    seed: int,
    *,
    first_step: int = 0,
    after_step: Callable[[nn.Module, int, float], None] | None = None,
) -> dict[str, Any]:
    """Trains from a step to the end and returns the test figures there."""
    data = workload.data
    losses: list[float] = []

    def loss_fn(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(network(batch[0]), batch[1])
        losses.append(float(loss.detach()))
        if len(losses) == 1 and after_step is not None:
            after_step(network, 0, losses[0])
        return loss

    def observe(step: int) -> None:
        if after_step is not None:
            after_step(model, step, sum(losses[-study.check_steps :]) / len(losses[-study.check_steps :]))

    train_steps(
        model,
        TensorBatches(data.train_inputs, data.train_targets, study.batch_size, seed).from_step(first_step),
        torch.optim.SGD(model.parameters(), lr=study.learning_rate, momentum=0.9, weight_decay=1e-4),
        first_step=first_step,
        num_steps=study.num_steps,
        lr_factor=lambda step: 0.1 if step >= 0.8 * study.num_steps else 1.0,
        after_step=observe,
        loss_fn=loss_fn,
    )
    loss, accuracy = evaluate_tensors(
        model, data.test_inputs[: study.num_tested], data.test_targets[: study.num_tested]
    )
    return {"test_loss": loss, "test_accuracy": accuracy}


def summarise(study: Study, replicates: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns intervals over the replicates: when tickets emerge, accuracies, differences from dense and shuffled."""
    emergences = [
        {
            "method": method,
            "sparsity": sparsity,
            "num_converged": len(shares),
            "share_of_training": None if len(shares) < 2 else vars(compute_t_interval(shares)),  # noqa: PLR2004 - an interval
        }
        for method in METHODS
        for sparsity in study.sparsities
        for shares in [
            [
                found["step"] / study.num_steps
                for replicate in replicates
                for found in replicate["emergences"]
                if (found["method"], found["sparsity"]) == (method, sparsity) and found["step"] is not None
            ]
        ]
    ]
    accuracies = []
    for sparsity in study.sparsities:
        for branch in ("early", "continued", "end", "shuffled", "random"):
            rows = [_find(replicate, branch, sparsity) for replicate in replicates]
            both = [(row, replicate) for row, replicate in zip(rows, replicates, strict=True) if row is not None]
            if not both:
                continue
            accuracies.append(
                {
                    "branch": branch,
                    "sparsity": sparsity,
                    "accuracy": _interval([row["test_accuracy"] for row, _ in both]),
                    "minus_dense": _interval([_minus(row, replicate, "dense", 0.0) for row, replicate in both]),
                    "minus_end": _interval([_minus(row, replicate, "end", sparsity) for row, replicate in both]),
                    "minus_shuffled": _interval(
                        [_minus(row, replicate, "shuffled", sparsity) for row, replicate in both]
                    ),
                }
            )
    dense = [_find(replicate, "dense", 0.0) for replicate in replicates]
    return {
        "emergences": emergences,
        "dense": _interval([row["test_accuracy"] for row in dense if row is not None]),
        "accuracies": accuracies,
    }


def _interval(values: list[float]) -> dict[str, Any]:
    interval: Interval = compute_t_interval(values)
    return vars(interval)


def _minus(row: Mapping[str, Any], replicate: Mapping[str, Any], branch: str, sparsity: float) -> float:
    other = _find(replicate, branch, sparsity)
    assert other is not None
    return float(row["test_accuracy"] - other["test_accuracy"])


def _find(replicate: Mapping[str, Any], branch: str, sparsity: float) -> dict[str, Any] | None:
    rows = [row for row in replicate["trainings"] if (row["branch"], row["sparsity"]) == (branch, sparsity)]
    return rows[0] if rows else None


def _watch(
    watchers: Mapping[tuple[Method, float], EarlyBirdWatcher],
    drawn: dict[float, tuple[Mask, int, dict[str, Tensor]]],
    model: nn.Module,
    step: int,
    loss: float,
) -> None:
    for (method, sparsity), watcher in watchers.items():
        watcher.observe(model, step, loss=loss)
        if method == "magnitude_ranking" and watcher.converged and sparsity not in drawn:
            drawn[sparsity] = watcher.draw_ticket(), step, copy_state(model)


def _describe(watcher: EarlyBirdWatcher, method: str, sparsity: float) -> dict[str, Any]:
    first = next((check for check in watcher.checkpoints if check["verdict"] == "converged"), None)
    kept = ("step", "correlation", "corrected_distance", "corrected_start_distance", "persistence", "loss", "verdict")
    history = [{name: check[name] for name in kept} for check in watcher.checkpoints]  # type: ignore[literal-required] # names of keys
    return {
        "method": method,
        "sparsity": sparsity,
        "step": None if first is None else first["step"],
        "history": history if (method, sparsity) == ("magnitude_ranking", 0.5) else [],
    }


if __name__ == "__main__":
    main()

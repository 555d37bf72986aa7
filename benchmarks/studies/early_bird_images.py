"""When early-bird tickets emerge on Fashion-MNIST, and what they are worth retrained beside their controls.

`python -m benchmarks.studies.early_bird_images lenet-300-100` (or `resnet-20`) trains everything, replicate by
replicate in processes of one thread each, and writes `benchmarks/results/early_bird_NAME.json`. What a replicate has
found is kept in the folder given by --folder, so that an interrupted run goes on.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from benchmarks.common import write_results
from benchmarks.studies.parts import Training, keep, overlay_masks, run_in_processes, sum_up
from lottery_tickets import ConvergenceRule, EarlyBirdWatcher, Mask, hold_mask, reinitialise_, remove_mask, shuffle_mask
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.measuring.evaluating import evaluate_tensors
from lottery_tickets._core.states import copy_state
from lottery_tickets.early_bird.history import METHODS, Method
from lottery_tickets.masks.common_weights import measure_distance
from lottery_tickets.workloads import Workload, load_workload


@final
@dataclass(frozen=True)
class Study:
    """How one network is trained and watched.

    Attributes:
        name: Of the study.
        training: Of each network.
        check_steps: From one check to the next.
        num_tested: Test images.
        sparsities: Of the tickets.
    """

    name: str
    training: Training
    check_steps: int
    num_tested: int = 10_000
    sparsities: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)

    def describe(self) -> dict[str, Any]:
        """Returns all settings."""
        settings = asdict(self)
        return {**settings.pop("training"), **settings}


STUDIES: Final = {
    study.name: study
    for study in (
        Study("lenet-300-100", Training("lenet-300-100", 4300, 128, 0.1, 5), 86),
        Study("lenet-300-100-by-epoch", Training("lenet-300-100", 4300, 128, 0.03, 3), 430, sparsities=(0.7, 0.9)),
        Study("resnet-20", Training("resnet-20", 300, 64, 0.1, 3), 10, num_tested=2_000),
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
    run = partial(load_replicate, study, arguments.folder)
    replicates = run_in_processes(run, range(study.training.num_replicates), arguments.workers)
    payload = {
        "study": study.describe(),
        "note": arguments.note,
        "summaries": summarise(study, replicates),
        "replicates": replicates,
    }
    print(write_results(f"early-bird-{study.name}", payload))


def load_replicate(study: Study, folder: Path, replicate: int) -> dict[str, Any]:
    """Returns one replicate's figures, from its file if it is there."""
    found: dict[str, Any] = keep(folder / f"{study.name}-{replicate}.json", partial(run_replicate, study, replicate))
    return found


def run_replicate(study: Study, replicate: int) -> dict[str, Any]:
    """Returns one replicate's figures."""
    workload = load_workload("fashion-mnist", study.training.model)
    seed = derive_seed(0, study.name, replicate)
    model = workload.build_model(torch.Generator().manual_seed(seed))
    start = copy_state(model)
    watchers = {
        (method, sparsity): EarlyBirdWatcher(
            model,
            target_sparsity=sparsity,
            rule=ConvergenceRule(method),
            check_steps=study.check_steps,
            probe=(workload.data.validation_inputs, workload.data.validation_targets),
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
    return {
        "replicate": replicate,
        "emergences": [_describe(watcher, method, sparsity) for (method, sparsity), watcher in watchers.items()],
        "trainings": trainings,
    }


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
        apart = measure_distance(overlay_masks(early, end_mask))
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

    study.training.train(model, data, seed, first_step=first_step, after_step=observe, loss_fn=loss_fn)
    loss, accuracy = evaluate_tensors(
        model, data.test_inputs[: study.num_tested], data.test_targets[: study.num_tested]
    )
    return {"test_loss": loss, "test_accuracy": accuracy}


def summarise(study: Study, replicates: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns intervals over the replicates: when tickets emerge, accuracies, differences from dense and shuffled."""
    emergences = []
    for method, sparsity in itertools.product(METHODS, study.sparsities):
        shares = [
            found["step"] / study.training.num_steps
            for replicate in replicates
            for found in replicate["emergences"]
            if (found["method"], found["sparsity"]) == (method, sparsity) and found["step"] is not None
        ]
        share = sum_up(shares) if len(shares) > 1 else None
        emergences.append(
            {"method": method, "sparsity": sparsity, "num_converged": len(shares), "share_of_training": share}
        )
    found = [
        {(row["branch"], row["sparsity"]): row["test_accuracy"] for row in replicate["trainings"]}
        for replicate in replicates
    ]
    accuracies = []
    for sparsity, branch in itertools.product(study.sparsities, ("early", "continued", "end", "shuffled", "random")):
        chosen = [accuracy for accuracy in found if (branch, sparsity) in accuracy]
        if chosen:
            values = [accuracy[branch, sparsity] for accuracy in chosen]
            row: dict[str, Any] = {"branch": branch, "sparsity": sparsity, "accuracy": sum_up(values)}
            for other in (("dense", 0.0), ("end", sparsity), ("shuffled", sparsity)):
                row[f"minus_{other[0]}"] = sum_up([accuracy[branch, sparsity] - accuracy[other] for accuracy in chosen])
            accuracies.append(row)
    dense = sum_up([accuracy["dense", 0.0] for accuracy in found])
    return {"emergences": emergences, "dense": dense, "accuracies": accuracies}


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
    kept = ("step", "correlation", "corrected_distance", "corrected_start_distance", "gap", "loss", "verdict")
    history = [{name: check[name] for name in kept} for check in watcher.checkpoints]  # type: ignore[literal-required] # names of keys
    return {
        "method": method,
        "sparsity": sparsity,
        "step": None if first is None else first["step"],
        "history": history if (method, sparsity) == ("magnitude_ranking", 0.5) else [],
    }


if __name__ == "__main__":
    main()

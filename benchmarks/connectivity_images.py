"""Linear mode connectivity on Fashion-MNIST over rewinding steps: dense networks and IMP subnetworks, with intervals.

After Frankle et al. 2020 (arXiv 1912.05671): a network is trained for k steps, then twice to the end from there, with
two data orders; its instability is the worst error on the line between the two ends, over the mean of theirs. The
subnetwork of step k comes from iterative magnitude pruning that rewinds to step k, and is trained twice from there too.

`.venv/bin/python benchmarks/connectivity_images.py train resnet-20` (or `lenet-300-100`) keeps the trained pairs in
--folder, where an interrupted run goes on; `... measure resnet-20` walks the lines and writes
`benchmarks/results/connectivity_NAME.json`.
"""

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from lottery_tickets import hold_mask, remove_mask
from lottery_tickets._core.batches import TensorBatches
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.parameters import find_prunable_weights
from lottery_tickets._core.states import copy_state
from lottery_tickets._core.training import train_steps
from lottery_tickets.experiments.records import load_state, save_state
from lottery_tickets.experiments.steps import keep_all, prune_state_, prune_survivors
from lottery_tickets.masks import Mask
from lottery_tickets.schedules import PruningSchedule
from lottery_tickets.workloads import Workload, load_workload

PRUNE_RATE: Final = 0.45  # of the survivors a round; three rounds leave 16.6 %, the paper's 16.8 % in fewer trainings
COPIES: Final = ("first", "second")


@dataclass(frozen=True)
class Study:
    """How one network is trained, and from which steps its copies part.

    Attributes:
        model: Of the workload.
        num_steps: Of a whole training.
        rewind_steps: The steps k.
        rounds: Of pruning; each number is a subnetwork that is trained twice.
        batch_size: Images a step.
        num_replicates: Independent repetitions.
        optimizer: "sgd" (momentum 0.9, weight decay 1e-4, a tenth of the rate for the last fifth) or "adam".
        learning_rate: At first.
    """

    model: str
    num_steps: int
    rewind_steps: tuple[int, ...]
    rounds: tuple[int, ...]
    batch_size: int
    num_replicates: int
    optimizer: str
    learning_rate: float


STUDIES: Final = {
    study.model: study
    for study in (
        Study("lenet-300-100", 6000, (0, 60, 600), (3, 6), 60, 5, "adam", 1.2e-3),
        Study("resnet-20", 500, (0, 15, 50, 125, 250), (3,), 64, 4, "sgd", 0.03),
    )
}


def main() -> None:
    """Trains the pairs of one study, or measures them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["train", "measure"])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--folder", type=Path, default=Path("runs/connectivity"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    with ProcessPoolExecutor(arguments.workers) as pool:
        list(pool.map(partial(train_replicate, study, arguments.folder), range(study.num_replicates)))


def find_pair(folder: Path, study: Study, replicate: int, rewind_step: int, num_rounds: int) -> list[Path]:
    """Returns the files of the two trained copies."""
    place = folder / study.model / f"replicate-{replicate}" / f"step-{rewind_step}-rounds-{num_rounds}"
    return [place / f"{copy}.safetensors" for copy in COPIES]


def train_replicate(study: Study, folder: Path, replicate: int) -> None:
    """Trains what is missing of one replicate."""
    torch.set_num_threads(1)
    workload = load_workload("fashion-mnist", study.model)
    seed = derive_seed(0, study.model, replicate)
    model = workload.build_model(torch.Generator().manual_seed(seed)).to(memory_format=torch.channels_last)
    reached = 0
    for rewind_step in study.rewind_steps:
        train(study, workload, model, derive_seed(seed, "shared"), first_step=reached, last_step=rewind_step)
        reached, start = rewind_step, copy_state(model)
        if not all(path.exists() for n in (0, *study.rounds) for path in find_pair(folder, study, replicate, reached, n)):
            train_pairs(study, workload, start, seed, reached, partial(find_pair, folder, study, replicate, reached))
        model.load_state_dict(start)


def train_pairs(
    study: Study, workload: Workload, start: Mapping[str, Tensor], seed: int, rewind_step: int, find_files: Any  # noqa: ANN401 - a partial
) -> None:
    """Trains the dense pair and the subnetworks' pairs from one step, and writes them."""
    model = workload.build_model(torch.Generator()).to(memory_format=torch.channels_last)
    schedule = PruningSchedule((("output.weight", 0.0), ("*.shortcut.*", 0.0), ("*", PRUNE_RATE)), "global")
    if study.model == "lenet-300-100":
        schedule = PruningSchedule((("output.weight", PRUNE_RATE / 2), ("*", PRUNE_RATE)), "layer")
    mask = keep_all({name: weight.tensor for name, weight in find_prunable_weights(model).items()})
    for num_rounds in range(max(study.rounds) + 1):
        ends = []
        is_wanted = num_rounds in (0, *study.rounds)
        for copy in COPIES if is_wanted else COPIES[:1]:
            model.load_state_dict(pruned(start, mask))
            hold_mask(model, mask)
            train(study, workload, model, derive_seed(seed, copy), first_step=rewind_step, last_step=study.num_steps)
            remove_mask(model)
            ends.append(copy_state(model))
        if is_wanted:
            for path, end in zip(find_files(num_rounds), ends, strict=True):
                save_state(path, end)
        mask = prune_survivors(ends[0], mask, schedule, num_rounds + 1)


def pruned(start: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """Returns a copy of a state with its pruned weights zeroed."""
    state = {name: tensor.clone() for name, tensor in start.items()}
    prune_state_(state, mask)
    return state


def train(study: Study, workload: Workload, model: nn.Module, seed: int, *, first_step: int, last_step: int) -> None:
    """Trains a model from one step to another; momentum starts anew, as it does after rewinding."""
    data = workload.data
    if study.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), study.learning_rate, fused=True)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), study.learning_rate, momentum=0.9, weight_decay=1e-4, fused=True
        )
    train_steps(
        model,
        TensorBatches(data.train_inputs, data.train_targets, study.batch_size, seed).from_step(first_step),
        optimizer,
        first_step=first_step,
        num_steps=last_step,
        lr_factor=lambda step: 0.1 if study.optimizer == "sgd" and step >= 0.8 * study.num_steps else 1.0,
        after_step=lambda _step: None,
    )


if __name__ == "__main__":
    main()

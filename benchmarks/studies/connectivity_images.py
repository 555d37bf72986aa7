"""Linear mode connectivity on Fashion-MNIST over rewinding steps: dense networks and IMP subnetworks, with intervals.

After Frankle et al. 2020 (arXiv 1912.05671): a network is trained for k steps, then twice to the end from there, with
two data orders; its instability is the worst error on the line between the two ends, over the mean of theirs. The
subnetwork of step k comes from iterative magnitude pruning that rewinds to step k, and is trained twice from there too.

`python -m benchmarks.studies.connectivity_images train resnet-20` (or `lenet-300-100`) keeps the trained pairs in
--folder, where an interrupted run goes on; `... measure resnet-20` walks the lines of the pairs that are there, keeps
each beside its pair, and writes `benchmarks/results/connectivity_NAME.json` and the figure; `... write resnet-20` does
only the last.
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

from benchmarks.common import FIGURES, TITLES, read_results, write_results
from benchmarks.studies.parts import Training, run_in_processes, sum_up
from lottery_tickets import compute_linear_connectivity, hold_mask, load_results, remove_mask, save_results
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.folders import load_state, save_state
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.states import copy_state
from lottery_tickets._core.weights import Weights
from lottery_tickets.experiments.pairs import COPIES
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.steps import prune_state_, prune_survivors
from lottery_tickets.masks.mask import Mask
from lottery_tickets.workloads import Workload, load_workload
from statistical_report_generator.figures.connectivity import draw_instability
from statistical_report_generator.figures.style import save_figure

PRUNE_RATE: Final = 0.45  # of the survivors a round; three rounds leave 16.6 %, the paper's 16.8 % in fewer trainings
BATCH: Final = 128  # images in a batch that statistics are computed from, and in one that is evaluated


@final
@dataclass(frozen=True)
class Look:
    """How the lines of a study are looked at.

    Attributes:
        num_points: Alphas, the ends included.
        num_test_images: The first ones of the test set, on which errors are measured.
        num_statistics_images: Training images, the same for all, from which batch-norm statistics are computed at each
            point; a LeNet has none.
    """

    num_points: int
    num_test_images: int
    num_statistics_images: int = 512


@final
@dataclass(frozen=True)
class Study:
    """How one network is trained, from which steps its copies part, and how the lines between them are looked at.

    Attributes:
        training: Of each copy.
        rewind_steps: The steps k.
        rounds: Of pruning; each number is a subnetwork that is trained twice.
        look: At the lines.
    """

    training: Training
    rewind_steps: tuple[int, ...]
    rounds: tuple[int, ...]
    look: Look


STUDIES: Final = {
    study.training.model: study
    for study in (
        Study(Training("lenet-300-100", 6000, 60, 1.2e-3, 5, "adam", fused=True), (0,), (3, 6), Look(30, 10_000)),
        Study(Training("resnet-20", 500, 64, 0.03, 4, fused=True), (0, 15, 50, 125, 250), (3,), Look(9, 1_500)),
    )
}


def main() -> None:
    """Trains the pairs of one study, measures them, or writes what has been measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["train", "measure", "write"])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--folder", type=Path, default=Path("runs/connectivity"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    if arguments.phase == "measure":
        measure_study(study, arguments.folder)
    if arguments.phase != "train":
        write_study(study, arguments.folder)
        return
    replicates = range(study.training.num_replicates)
    run_in_processes(partial(train_replicate, study, arguments.folder), replicates, arguments.workers)


def find_pair(folder: Path, study: Study, replicate: int, rewind_step: int, num_rounds: int) -> list[Path]:
    """Returns the files of the two trained copies."""
    place = folder / study.training.model / f"replicate-{replicate}" / f"step-{rewind_step}-rounds-{num_rounds}"
    return [place / f"{copy}.safetensors" for copy in COPIES]


def train_replicate(study: Study, folder: Path, replicate: int) -> None:
    """Trains what is missing of one replicate."""
    workload = load_workload("fashion-mnist", study.training.model)
    seed = derive_seed(0, study.training.model, replicate)
    model = build_fast(workload, seed)
    reached = 0
    for rewind_step in study.rewind_steps:
        order = derive_seed(seed, "shared")
        study.training.train(model, workload.data, order, first_step=reached, last_step=rewind_step)
        reached, start = rewind_step, copy_state(model)
        find_files = partial(find_pair, folder, study, replicate, reached)
        if not all(path.exists() for num_rounds in (0, *study.rounds) for path in find_files(num_rounds)):
            train_pairs(study, workload, start, seed, rewind_step=reached, find_files=find_files)
        model.load_state_dict(start)


def build_fast(workload: Workload, seed: int) -> nn.Module:
    """Returns a fresh network whose convolutions are laid out for speed."""
    model = workload.build_model(torch.Generator().manual_seed(seed))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch's types lack
    return model


def train_pairs(
    study: Study,
    workload: Workload,
    start: Mapping[str, Tensor],
    seed: int,
    *,
    rewind_step: int,
    find_files: Callable[[int], list[Path]],
) -> None:
    """Trains the dense pair and the subnetworks' pairs from one step, and writes them."""
    model = build_fast(workload, seed)
    schedule = PruningSchedule((("output.weight", 0.0), ("*.shortcut.*", 0.0), ("*", PRUNE_RATE)), "global")
    if study.training.model == "lenet-300-100":
        schedule = PruningSchedule((("output.weight", PRUNE_RATE / 2), ("*", PRUNE_RATE)), "layer")
    mask = Mask.keeping_all(find_prunable_weights(model).shapes)
    for num_rounds in range(max(study.rounds) + 1):
        ends = []
        is_wanted = num_rounds in (0, *study.rounds)
        for copy in COPIES if is_wanted else COPIES[:1]:
            state = {name: tensor.clone() for name, tensor in start.items()}
            prune_state_(state, mask)
            model.load_state_dict(state)
            hold_mask(model, mask)
            study.training.train(model, workload.data, derive_seed(seed, copy), first_step=rewind_step)
            remove_mask(model)
            ends.append(copy_state(model))
        if is_wanted:
            for path, end in zip(find_files(num_rounds), ends, strict=True):
                save_state(path, end)
        mask = prune_survivors(Weights.from_tensors(ends[0]), mask, schedule, num_rounds + 1)


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_study(study: Study, folder: Path) -> None:
    """Walks the lines that have not been walked yet of the pairs that are trained."""
    torch.set_num_threads(1)
    workload = load_workload("fashion-mnist", study.training.model)
    for replicate, rewind_step, num_rounds in list_pairs(study):
        files = find_pair(folder, study, replicate, rewind_step, num_rounds)
        if all(path.exists() for path in files) and not find_line(study, files).exists():
            measure_pair(study, workload, files)


def list_pairs(study: Study) -> list[tuple[int, int, int]]:
    """Returns replicate, rewinding step and rounds of each pair."""
    return list(itertools.product(range(study.training.num_replicates), study.rewind_steps, (0, *study.rounds)))


def find_line(study: Study, files: list[Path]) -> Path:
    """Returns the file that keeps what was found between two trained copies."""
    look = study.look
    return files[0].with_name(f"line-{look.num_points}-{look.num_test_images}-{look.num_statistics_images}.json")


def write_study(study: Study, folder: Path) -> None:
    """Writes and draws what has been measured of a study."""
    found: dict[tuple[int, int], dict[int, dict[str, Any]]] = {}
    for replicate, rewind_step, num_rounds in list_pairs(study):
        line = find_line(study, find_pair(folder, study, replicate, rewind_step, num_rounds))
        if line.exists():
            found.setdefault((rewind_step, num_rounds), {})[replicate] = load_results(line)
    payload = {
        "study": {**asdict(study.training), "rewind_steps": study.rewind_steps, "rounds": study.rounds},
        "look": asdict(study.look),
        "num_missing_pairs": len(list_pairs(study)) - sum(map(len, found.values())),
        "rows": [summarise(study, found, *place) for place in sorted(found)],
    }
    print(write_results(f"connectivity-{study.training.model}", payload))
    panels = {TITLES[name]: read_results(f"connectivity-{name}")["rows"] for name in STUDIES}
    save_figure(draw_instability(panels), FIGURES / "connectivity.svg")


def measure_pair(study: Study, workload: Workload, files: list[Path]) -> None:
    """Walks the line between two trained copies and keeps what it finds."""
    look, data = study.look, workload.data
    images, targets = (tensor[: look.num_test_images].split(BATCH) for tensor in (data.test_inputs, data.test_targets))
    chosen = TensorBatches(data.train_inputs, data.train_targets, BATCH, derive_seed(0, "statistics")).from_step(0)
    first, second = (load_state(path) for path in files)
    model = build_fast(workload, 0)
    found = compute_linear_connectivity(
        model,
        list(zip(images, targets, strict=True)),
        first,
        second,
        num_points=look.num_points,
        statistics_dataloader=list(itertools.islice(chosen, look.num_statistics_images // BATCH)),
    )
    weights = [first[name] for name in find_prunable_weights(model)]
    density = sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
    save_results({**found, "density": density}, find_line(study, files))
    print(files[0].parent, f"instability {found['instability']:.4f}, barrier {found['barrier']:.4f}", flush=True)


def summarise(
    study: Study, found: Mapping[tuple[int, int], Mapping[int, Mapping[str, Any]]], rewind_step: int, num_rounds: int
) -> dict[str, Any]:
    """Returns the row of one rewinding step and network: intervals over the replicates that are there."""
    pairs, dense = found[rewind_step, num_rounds], found.get((rewind_step, 0), {})
    density = sum(pair["density"] for pair in pairs.values()) / len(pairs)
    accuracies = {replicate: find_accuracy(pair) for replicate, pair in pairs.items()}
    differences = [value - find_accuracy(dense[r]) for r, value in accuracies.items() if num_rounds and r in dense]
    errors = [pair["pairs"][0]["errors"] for pair in pairs.values()]
    return {
        "step": rewind_step,
        "share_of_training": rewind_step / study.training.num_steps,
        "num_rounds": num_rounds,
        "density": density,
        "network": f"IMP subnetwork, {100 * density:.1f} % of the weights" if num_rounds else "dense",
        "num_pairs": len(pairs),
        "num_stable": sum(pair["stable"] for pair in pairs.values()),
        **{
            figure: sum_up([pair[figure] for pair in pairs.values()])
            for figure in ("instability", "barrier", "barrier_over_line")
        },
        "accuracy": sum_up(list(accuracies.values())),
        "accuracy_minus_dense": sum_up(differences) if differences else None,
        "alphas": next(iter(pairs.values()))["pairs"][0]["alphas"],
        "mean_errors": [sum(point) / len(point) for point in zip(*errors, strict=True)],
    }


def find_accuracy(pair: Mapping[str, Any]) -> float:
    """Returns the mean accuracy of the two ends."""
    ends = pair["pairs"][0]
    return float(ends["first"]["accuracy"] + ends["second"]["accuracy"]) / 2


if __name__ == "__main__":
    main()

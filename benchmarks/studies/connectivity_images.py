"""Linear mode connectivity on Fashion-MNIST over rewinding steps: dense networks and IMP subnetworks, with intervals.

After Frankle et al. 2020 (arXiv 1912.05671): a network is trained for k steps, then twice to the end from there, with
two data orders; its instability is the worst error on the line between the two ends, over the mean of theirs. The
subnetwork of step k comes from iterative magnitude pruning that rewinds to step k, and is trained twice from there too.
Each step k is an experiment with pairs, in a run folder of its own.

`python -m benchmarks.studies.connectivity_images train resnet-20` (or `lenet-300-100`) keeps the trainings in --folder,
where an interrupted run goes on; `... measure resnet-20` walks the lines of the pairs that are there and keeps each
beside its run; `... write resnet-20` writes `benchmarks/results/connectivity_NAME.json` and the figure.
"""

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn

from benchmarks.common import FIGURES, TITLES, read_results, write_results
from benchmarks.studies.parts import ShortRecipe, sum_up
from lottery_tickets import compute_linear_connectivity, load_results, save_results
from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets.connectivity.pairs import load_pair
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSubject
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
        recipe: Of each copy.
        rewind_steps: The steps k.
        rounds: Of pruning; each number is a subnetwork that is trained twice.
        look: At the lines.
    """

    recipe: ShortRecipe
    rewind_steps: tuple[int, ...]
    rounds: tuple[int, ...]
    look: Look


STUDIES: Final = {
    study.recipe.model: study
    for study in (
        Study(ShortRecipe("lenet-300-100", 6000, 60, 1.2e-3, 5, "adam"), (0,), (3, 6), Look(30, 10_000)),
        Study(ShortRecipe("resnet-20", 500, 64, 0.03, 4), (0, 15, 50, 125, 250), (3,), Look(9, 1_500)),
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
    if arguments.phase == "train":
        for rewind_step in study.rewind_steps:
            run_experiment(
                plan_study(study, arguments.folder, rewind_step),
                StudySource(study.recipe),
                num_workers=arguments.workers,
                progress=True,
            )
    elif arguments.phase == "measure":
        measure_study(study, arguments.folder)
    else:
        write_study(study, arguments.folder)


@final
class FastWorkload(Workload):
    """A workload whose convolutions are laid out for speed."""

    def build_model(self, generator: torch.Generator) -> nn.Module:
        """Returns a fresh network."""
        model = super().build_model(generator)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch's types lack
        return model


@final
@dataclass(frozen=True)
class StudySource:
    """What an experiment of the study trains, built where it is trained."""

    recipe: ShortRecipe

    def __call__(self) -> WorkloadSubject:
        """Returns the subject, its data loaded."""
        found = load_workload("fashion-mnist", self.recipe.model)
        rates = {"output.weight": 0.0, "*.shortcut.*": 0.0, "*": PRUNE_RATE}
        if self.recipe.model == "lenet-300-100":
            rates = {"output.weight": PRUNE_RATE / 2, "*": PRUNE_RATE}
        recipe = replace(self.recipe.make_recipe(found.recipe), prune_rates=rates)
        return WorkloadSubject(FastWorkload(found.name, found.data, found.model_name, recipe))


def plan_study(study: Study, folder: Path, rewind_step: int) -> ExperimentFolder:
    """Returns the experiment of one rewinding step and where it lies."""
    subject = StudySource(study.recipe)()
    recipe = subject.workload.recipe
    plan = ExperimentPlan(
        subject=subject.describe(),
        schedule=PruningSchedule(tuple(recipe.prune_rates.items()), recipe.scope),
        num_levels=max(study.rounds),
        num_steps=recipe.num_steps,
        rewind_step=rewind_step,
        num_replicates=study.recipe.num_replicates,
        copy_levels=(0, *study.rounds),
    )
    return ExperimentFolder(folder / study.recipe.model / f"step-{rewind_step}", plan, made_by=__name__)


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_study(study: Study, folder: Path) -> None:
    """Walks the lines that have not been walked yet of the pairs that are trained."""
    torch.set_num_threads(1)
    workload = StudySource(study.recipe)().workload
    for replicate, rewind_step, num_rounds in list_pairs(study):
        run = plan_study(study, folder, rewind_step)
        line = find_line(study, run, replicate, num_rounds)
        if run.is_finished(Training(replicate, num_rounds, "copy")) and not line.exists():
            measure_pair(study, workload, run, replicate, num_rounds)


def list_pairs(study: Study) -> list[tuple[int, int, int]]:
    """Returns replicate, rewinding step and rounds of each pair."""
    return list(itertools.product(range(study.recipe.num_replicates), study.rewind_steps, (0, *study.rounds)))


def find_line(study: Study, run: ExperimentFolder, replicate: int, num_rounds: int) -> Path:
    """Returns the file, beside the run, that keeps what was found between two trained copies."""
    look = f"{study.look.num_points}-{study.look.num_test_images}-{study.look.num_statistics_images}"
    return run.path.with_name(f"{run.path.name}-lines-{look}") / f"replicate-{replicate}-rounds-{num_rounds}.json"


def write_study(study: Study, folder: Path) -> None:
    """Writes and draws what has been measured of a study."""
    found: dict[tuple[int, int], dict[int, dict[str, Any]]] = {}
    for replicate, rewind_step, num_rounds in list_pairs(study):
        run = plan_study(study, folder, rewind_step)
        line = find_line(study, run, replicate, num_rounds)
        if line.exists():
            found.setdefault((rewind_step, num_rounds), {})[replicate] = load_results(line)
    payload = {
        "study": {**asdict(study.recipe), "rewind_steps": study.rewind_steps, "rounds": study.rounds},
        "look": asdict(study.look),
        "num_missing_pairs": len(list_pairs(study)) - sum(map(len, found.values())),
        "rows": [summarise(study, found, *place) for place in sorted(found)],
    }
    print(write_results(f"connectivity-{study.recipe.model}", payload))
    panels = {TITLES[name]: read_results(f"connectivity-{name}")["rows"] for name in STUDIES}
    save_figure(draw_instability(panels), FIGURES / "connectivity.svg")


def measure_pair(study: Study, workload: Workload, run: ExperimentFolder, replicate: int, num_rounds: int) -> None:
    """Walks the line between two trained copies and keeps what it finds."""
    look, data = study.look, workload.data
    images, targets = (tensor[: look.num_test_images].split(BATCH) for tensor in (data.test_inputs, data.test_targets))
    chosen = TensorBatches(data.train_inputs, data.train_targets, BATCH, derive_seed(0, "statistics")).from_step(0)
    pair = load_pair(run, replicate, num_rounds)
    found = compute_linear_connectivity(
        workload.build_model(torch.Generator().manual_seed(0)),
        list(zip(images, targets, strict=True)),
        pair.first,
        pair.second,
        num_points=look.num_points,
        statistics_dataloader=list(itertools.islice(chosen, look.num_statistics_images // BATCH)),
    )
    density = run.load_mask(Training(replicate, num_rounds, "ticket")).density
    line = find_line(study, run, replicate, num_rounds)
    line.parent.mkdir(exist_ok=True)
    save_results({**found, "density": density}, line)
    print(line, f"instability {found['instability']:.4f}, barrier {found['barrier']:.4f}", flush=True)


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
        "share_of_training": rewind_step / study.recipe.num_steps,
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

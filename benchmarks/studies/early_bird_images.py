"""When early-bird tickets emerge on Fashion-MNIST, and what they are worth retrained beside their controls.

`python -m benchmarks.studies.early_bird_images lenet-300-100` (or `resnet-20`) trains everything, replicate by
replicate in processes of one thread each, and writes `benchmarks/results/early_bird_NAME.json`. A ticket that a dense
training was watched for is retrained by experiments, whose run folders, as what a replicate has found, are kept in the
folder given by --folder, so that an interrupted run goes on.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from torch import nn

from benchmarks.common import write_results
from benchmarks.studies.parts import ShortRecipe, keep, overlay_masks, run_in_processes, sum_up
from lottery_tickets import ConvergenceRule, EarlyBirdWatcher, Mask
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.early_bird.history import METHODS
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import Branch, ExperimentPlan, Training
from lottery_tickets.experiments.retraining import plan_retraining
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSubject
from lottery_tickets.masks.common_weights import measure_distance
from lottery_tickets.workloads import load_workload

NUM_PROBED: Final = 256  # images that are held out, by which a watcher sees learning


@final
@dataclass(frozen=True)
class Study:
    """How one network is trained and watched.

    Attributes:
        name: Of the study.
        recipe: Of each network.
        check_steps: From one check to the next.
        sparsities: Of the tickets.
    """

    name: str
    recipe: ShortRecipe
    check_steps: int
    sparsities: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)

    def describe(self) -> dict[str, Any]:
        """Returns all settings."""
        settings = asdict(self)
        return {**settings.pop("recipe"), **settings}


STUDIES: Final = {
    study.name: study
    for study in (
        Study("lenet-300-100", ShortRecipe("lenet-300-100", 4300, 128, 0.1, 5), 86),
        Study("lenet-300-100-by-epoch", ShortRecipe("lenet-300-100", 4300, 128, 0.03, 3), 430, sparsities=(0.7, 0.9)),
        Study("resnet-20", ShortRecipe("resnet-20", 300, 64, 0.1, 3), 10),
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
    replicates = run_in_processes(run, range(study.recipe.num_replicates), arguments.workers)
    payload = {
        "study": study.describe(),
        "note": arguments.note,
        "summaries": summarise(study, replicates),
        "replicates": replicates,
    }
    print(write_results(f"early-bird-{study.name}", payload))


def load_replicate(study: Study, folder: Path, replicate: int) -> dict[str, Any]:
    """Returns one replicate's figures, from its file if it is there."""
    found: dict[str, Any] = keep(
        folder / f"{study.name}-{replicate}.json", partial(run_replicate, study, folder, replicate)
    )
    return found


def run_replicate(study: Study, folder: Path, replicate: int) -> dict[str, Any]:
    """Returns one replicate's figures."""
    dense = DenseTraining(study, derive_seed(0, study.name, replicate))
    watchers = {
        (method, sparsity): dense.create_watcher(
            target_sparsity=sparsity, rule=ConvergenceRule(method), check_steps=study.check_steps
        )
        for method in METHODS
        for sparsity in study.sparsities
    }
    drawn: dict[float, tuple[Mask, int]] = {}

    def observe(model: nn.Module, step: int) -> None:
        for (method, sparsity), watcher in watchers.items():
            watcher.observe(model, step)
            if method == "magnitude_ranking" and watcher.converged and sparsity not in drawn:
                drawn[sparsity] = watcher.draw_ticket(), step

    dense.train(observe)
    trainings: list[dict[str, Any]] = []
    for sparsity in study.sparsities:
        end_mask = watchers["magnitude_ranking", sparsity].draw_ticket(last=True)
        place = folder / f"{study.name}-{replicate}" / f"sparsity-{sparsity:g}"
        trainings += retrain(dense, place, sparsity=sparsity, drawn=drawn.get(sparsity), end_mask=end_mask)
    unpruned = {**next(row for row in trainings if row["branch"] == "dense"), "sparsity": 0.0}
    return {
        "replicate": replicate,
        "emergences": [_describe(watcher, method, sparsity) for (method, sparsity), watcher in watchers.items()],
        "trainings": [unpruned, *(row for row in trainings if row["branch"] != "dense")],
    }


@final
class DenseTraining:
    """The dense training of a replicate, once as it is watched, and again in each experiment with a ticket of it."""

    def __init__(self, study: Study, seed: int) -> None:
        workload = load_workload("fashion-mnist", study.recipe.model)
        self.subject = WorkloadSubject(replace(workload, recipe=study.recipe.make_recipe(workload.recipe)))
        self.seed, self.num_steps = seed, study.recipe.num_steps
        plan = ExperimentPlan(self.subject.describe(), PruningSchedule(), 0, self.num_steps, seed=seed)
        self.seeds = Training(0, 0, "ticket").derive_seeds(plan)
        self.model = self.subject.build(self.seeds["initialisation"])
        self.start = copy_state(self.model)
        self.end_sha256 = ""

    def create_watcher(self, **settings: Any) -> EarlyBirdWatcher:  # noqa: ANN401 - as EarlyBirdWatcher takes them
        """Returns a watcher of it, with images that are held out as its probe."""
        data = self.subject.workload.data
        probe = (data.validation_inputs[:NUM_PROBED], data.validation_targets[:NUM_PROBED])
        return EarlyBirdWatcher(self.model, probe=[probe], **settings)

    def train(self, observe: Callable[[nn.Module, int], object]) -> None:
        """Trains to the end, observed after each step."""
        self.subject.train(
            self.model,
            first_step=0,
            last_step=self.num_steps,
            seed=self.seeds["data_order"],
            rewind_step=0,
            keep_rewind_point=lambda: None,
            observe=observe,
        )
        self.end_sha256 = hash_state(copy_state(self.model))

    def retrain(
        self, place: Path, mask: Mask, *, controls: tuple[Branch, ...] = (), rewind_step: int = 0
    ) -> dict[str, dict[str, float]]:
        """Returns the test figures at the end by branch: of an experiment that trains a ticket from theta_k.

        Args:
            place: Its run folder.
            mask: The ticket.
            controls: Trained beside it.
            rewind_step: k.
        """
        subject = replace(self.subject, ticket=mask, start=self.start)
        plan = plan_retraining(subject, self.num_steps, 1, self.seed, controls)
        run = ExperimentFolder(place, replace(plan, rewind_step=rewind_step), made_by=__name__)
        rows = run_experiment(run, lambda: subject)["trainings"]
        dense = hash_state(run.load_weights(Training(0, 0, "ticket")))
        assert dense == self.end_sha256, "the training that was watched must be the dense one of the experiment"
        names = [("dense" if row["level"] == 0 else row["branch"], row["history"]["end"]) for row in rows]
        return {name: {figure: end[figure] for figure in ("test_loss", "test_accuracy")} for name, end in names}


def retrain(
    dense: DenseTraining, place: Path, *, sparsity: float, drawn: tuple[Mask, int] | None, end_mask: Mask
) -> list[dict[str, Any]]:
    """Returns tickets and controls of one sparsity, all on the data order of the dense training, as rows.

    Args:
        dense: The training that they were drawn in.
        place: Where their experiments go.
        sparsity: Of the tickets.
        drawn: The early ticket with the step at which it was drawn; None where none converged.
        end_mask: The ticket of the last check.
    """

    def add(branches: Mapping[str, dict[str, float]], first_step: int = 0) -> list[dict[str, Any]]:
        return [
            {"branch": name, "sparsity": sparsity, "first_step": first_step, **row} for name, row in branches.items()
        ]

    controls: tuple[Branch, ...] = ("shuffled", "random")
    of_end = dense.retrain(place / "end", end_mask, controls=() if drawn else controls)
    rows = add({("end" if name == "ticket" else name): row for name, row in of_end.items()})
    if drawn is None:
        return rows
    early, step = drawn
    found = dense.retrain(place / "early", early, controls=controls)
    apart = measure_distance(overlay_masks(early, end_mask))
    distances = {"distance_to_end": apart.raw, "corrected_distance_to_end": apart.corrected}
    rows += add({"early": {**found["ticket"], **distances}, **{name: found[name] for name in controls}})
    continued = dense.retrain(place / "continued", early, rewind_step=step)
    return rows + add({"continued": continued["ticket"]}, first_step=step)


def summarise(study: Study, replicates: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns intervals over the replicates: when tickets emerge, accuracies, differences from dense and shuffled."""
    emergences = []
    for method, sparsity in itertools.product(METHODS, study.sparsities):
        shares = [
            found["step"] / study.recipe.num_steps
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


def _describe(watcher: EarlyBirdWatcher, method: str, sparsity: float) -> dict[str, Any]:
    first = next((check for check in watcher.checkpoints if check["verdict"] == "converged"), None)
    kept = ("step", "correlation", "corrected_distance", "corrected_start_distance", "gap", "probe_loss", "verdict")
    history = [{name: check[name] for name in kept} for check in watcher.checkpoints]  # type: ignore[literal-required] # names of keys
    return {
        "method": method,
        "sparsity": sparsity,
        "step": None if first is None else first["step"],
        "history": history if (method, sparsity) == ("magnitude_ranking", 0.5) else [],
    }


if __name__ == "__main__":
    main()

"""`lottery-tickets imp`: iterative magnitude pruning of a workload, with controls, in a run folder."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unified_model_analysis.experiment_summary import check_report_extra, report_experiment
from unified_model_analysis.options import ComputationOptions, WorkloadOptions

if TYPE_CHECKING:
    from lottery_tickets.workloads import Recipe


@dataclass(frozen=True)
class Imp(ComputationOptions, WorkloadOptions):
    """Find lottery tickets by iterative magnitude pruning: train, prune, rewind, repeat, with controls on equal budget.

    The experiment is a folder. Stopped at any moment, the same command goes on where it stopped and ends with the
    same bits. `lottery-tickets verify RUN` re-checks it. Recipes (optimizer, learning rate, batch size, prune rates)
    are those of Frankle & Carbin 2019, arXiv 1803.03635.

    Attributes:
        run_folder: Where the experiment lives; begun when it does not exist.
        data: Data set. "digits" comes with scikit-learn, "fashion-mnist" with the Debian package dataset-fashion-mnist.
        folder: Folder of the four IDX files, for "mnist-format", or for Fashion-MNIST at another place.
        levels: Rounds of pruning after the dense training; each removes the recipe's share of the survivors.
        controls: Rounds at which the controls are trained too (reinitialised, shuffled mask, random mask); the last
            round when not given.
        replicates: Independent repetitions; intervals need at least 3.
        steps: Training steps of each training; the recipe's own when not given.
        evaluate_every: Steps from one evaluation to the next; the recipe's own when not given.
        learning_rate: The recipe's own when not given.
        rewind_step: k: survivors are set back to their weights after k steps of the dense training.
        rewinding: Set back weights, or only the learning-rate schedule.
        data_order: Whether each level sees the batches in the same order.
        moment: When accuracy is taken: at the least validation loss, or after the last step.
        margin: Points of test accuracy whose loss counts as none: a ticket is matching when it loses less.
        looks: How often the findings are read in all while replicates are added, as planned before the first time;
            each look spends its share of the error.
        test: Whether claims are on the mean, by t tests, or on the median, by sign tests, which hold however trainings
            fail but need more replicates; choose before looking.
        accept_changed_environment: Go on with other versions or on another machine; what is there stays, equal bits are
            then no longer claimed.
        seed: Names the experiment.
        workers: Processes that share the replicates; all cores when not given. Does not change the results.
        device: Where to train.
    """

    run_folder: Annotated[Path, tyro.conf.Positional]
    levels: int = 15
    controls: tuple[int, ...] | None = None
    replicates: int = 3
    steps: int | None = None
    evaluate_every: int | None = None
    learning_rate: float | None = None
    rewind_step: int = 0
    rewinding: Literal["weights", "learning_rate"] = "weights"
    data_order: Literal["same", "fresh"] = "same"
    moment: Literal["early_stop", "end"] = "early_stop"
    margin: float = 0.5
    looks: int = 1
    test: Literal["t", "sign"] = "t"
    workers: int | None = None
    accept_changed_environment: bool = False

    def run(self) -> int:
        """Runs or continues the experiment, prints its table and findings; returns the exit code."""
        check_report_extra()
        from lottery_tickets.experiments.folder import ExperimentFolder
        from lottery_tickets.experiments.plan import ExperimentPlan
        from lottery_tickets.experiments.run import run_experiment
        from lottery_tickets.experiments.schedules import PruningSchedule
        from lottery_tickets.experiments.workload_subject import WorkloadSource
        from statistical_report_generator.claims.assessment import check_settings

        check_settings(margin=self.margin / 100, num_looks=self.looks)
        source = WorkloadSource(self.data, self.model, self.folder, device=self.device)
        subject = source()
        recipe = self._change_recipe(subject.workload.recipe)
        subject = replace(subject, workload=replace(subject.workload, recipe=recipe))
        plan = ExperimentPlan(
            subject=subject.describe(),
            schedule=PruningSchedule(tuple(recipe.prune_rates.items()), recipe.scope),
            num_levels=self.levels,
            num_steps=recipe.num_steps,
            rewind_step=self.rewind_step,
            rewinding=self.rewinding,
            control_levels=self._list_control_levels(),
            num_replicates=self.replicates,
            seed=self.seed,
            data_order=self.data_order,
        )
        workers = self.workers or os.cpu_count() or 1
        # The source and not the subject, because each worker process loads the data for itself.
        run_experiment(
            ExperimentFolder(self.run_folder, plan),
            replace(source, recipe=recipe),
            num_workers=workers,
            accept_changed_environment=self.accept_changed_environment,
            progress=True,
        )
        settings: dict[str, Any] = {"moment": self.moment, "num_looks": self.looks, "test": self.test}
        report_experiment(self.run_folder, margin=self.margin / 100, **settings)
        return 0

    def _list_control_levels(self) -> tuple[int, ...]:
        last = (self.levels,) if self.levels else ()
        return last if self.controls is None else tuple(sorted(set(self.controls)))

    def _change_recipe(self, recipe: "Recipe") -> "Recipe":
        changes: dict[str, Any] = {"num_steps": self.steps, "evaluation_interval": self.evaluate_every}
        if self.learning_rate is not None:
            changes["optimizer_arguments"] = {**recipe.optimizer_arguments, "lr": self.learning_rate}
        return replace(recipe, **{name: value for name, value in changes.items() if value is not None})

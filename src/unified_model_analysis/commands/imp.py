"""`lottery-tickets imp`: iterative magnitude pruning of a workload, with controls, in a run folder."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from unified_model_analysis.experiment_summary import check_report_extra, report_experiment
from unified_model_analysis.networks import load_own, refuse_options
from unified_model_analysis.options import (
    MARGIN,
    ComputationOptions,
    ExecutorOptions,
    FolderOutput,
    LoggingOptions,
    WorkloadOptions,
)
from unified_model_analysis.own_networks import EPOCHS, LEARNING_RATE

if TYPE_CHECKING:
    from lottery_tickets.experiments.elsewhere.tasks import Executor
    from lottery_tickets.utils import Logger
    from lottery_tickets.workloads import Recipe

PRUNE_RATE: Final = 0.2  # of a network of one's own


@dataclass(frozen=True)
class Imp(ComputationOptions, ExecutorOptions, LoggingOptions, WorkloadOptions, FolderOutput):
    """Find lottery tickets by iterative magnitude pruning: train, prune, rewind, repeat, with controls on equal budget.

    The experiment is a folder. Stopped at any moment, the same command goes on where it stopped and ends with the
    same bits. `lottery-tickets verify RUN` re-checks it. Recipes (optimizer, learning rate, batch size, prune rates)
    are those of Frankle & Carbin 2019, arXiv 1803.03635.

    Example: `lottery-tickets imp --output runs/digits --levels 2 --replicates 2 --steps 20`

    Attributes:
        output: Folder where the experiment lives; begun when it does not exist.
        data: Data set. "digits" comes with scikit-learn, "fashion-mnist" with the Debian package dataset-fashion-mnist.
        folder: Folder of the four IDX files, for "mnist-format", or for Fashion-MNIST at another place.
        levels: Rounds of pruning after the dense training; each removes the recipe's share of the survivors, or
            --prune-rate of a network of one's own.
        controls: Rounds at which the controls are trained too (reinitialised, shuffled mask, random mask); the last
            round when not given.
        replicates: Independent repetitions; intervals need at least 3.
        steps: Training steps of each training; the recipe's own when not given.
        evaluate_every: Steps from one evaluation to the next; the recipe's own when not given.
        learning_rate: The recipe's own when not given; of a network of one's own that of Adam, 0.001 when not given.
        epochs: Epochs of each training of a network of one's own.
        prune_rate: Share of the survivors that a round removes from a network of one's own.
        rewind_step: k: survivors are set back to their weights after k steps of the dense training; of a network of
            one's own after k epochs.
        rewinding: Set back weights, or only the learning-rate schedule.
        data_order: Whether each level sees the batches in the same order.
        moment: When accuracy is taken: at the least validation loss, or after the last step; the first of both that
            there is when not given.
        margin: Points of test accuracy whose loss counts as none: a ticket is matching when it loses less.
        looks: How often the findings are read in all while replicates are added, as planned before the first time;
            each look spends its share of the error.
        test: Whether claims are on the mean, by t tests, or on the median, by sign tests, which hold however trainings
            fail but need more replicates; choose before looking.
        accept_changed_environment: Go on with other versions or on another machine; what is there stays, equal bits are
            then no longer claimed.
        seed: Names the experiment.
        device: Where to train.
    """

    levels: int = 15
    controls: tuple[int, ...] | None = None
    replicates: int = 3
    steps: int | None = None
    evaluate_every: int | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    prune_rate: float | None = None
    rewind_step: int = 0
    rewinding: Literal["weights", "learning_rate"] = "weights"
    data_order: Literal["same", "fresh"] = "same"
    moment: Literal["early_stop", "end"] | None = None
    margin: float = MARGIN
    looks: int = 1
    test: Literal["t", "sign"] = "t"
    accept_changed_environment: bool = False

    def run(self) -> int:
        """Runs or continues the experiment, prints its table and findings; returns the exit code."""
        check_report_extra()
        from statistical_report_generator.claims.assessment import check_settings

        check_settings(margin=self.margin / 100, num_looks=self.looks)
        self.check_executor()
        with self.opened_loggers() as loggers, self.opened_executor(self.output) as executor:
            if self.source is None:
                self._run_workload(loggers, executor)
            else:
                self._run_own(loggers, executor)
        settings: dict[str, Any] = {"moment": self.moment, "num_looks": self.looks, "test": self.test}
        report_experiment(self.output, margin=self.margin / 100, **settings)
        return 0

    def _run_workload(self, loggers: "list[Logger]", executor: "Executor | None") -> None:
        from lottery_tickets.experiments.folder import ExperimentFolder
        from lottery_tickets.experiments.plan import ExperimentPlan
        from lottery_tickets.experiments.run import run_experiment
        from lottery_tickets.experiments.schedules import PruningSchedule
        from lottery_tickets.experiments.workload_subject import WorkloadSource

        refuse_options(self, "a workload, whose recipe says it", "epochs", "prune_rate")
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
        # The source and not the subject, because each worker process loads the data for itself.
        run_experiment(
            ExperimentFolder(self.output, plan),
            replace(source, recipe=recipe),
            num_workers=self.num_workers,
            executor=executor,
            accept_changed_environment=self.accept_changed_environment,
            progress=True,
            logger=loggers,
        )

    def _run_own(self, loggers: "list[Logger]", executor: "Executor | None") -> None:
        from lottery_tickets import compute_iterative_magnitude_pruning
        from lottery_tickets.utils import check_device

        refuse_options(
            self, "a network of one's own", "steps", "evaluate_every", "data_order", *self.of_workloads_alone
        )
        check_device(self.device)
        loaded = load_own(self)
        rate = PRUNE_RATE if self.prune_rate is None else self.prune_rate
        compute_iterative_magnitude_pruning(
            loaded.network.to(self.device),
            loaded.batches,
            1 - (1 - rate) ** self.levels,
            trainer_fn=loaded.trainer_fn,
            train=loaded.trainer_fn is None,
            num_epochs=EPOCHS if self.epochs is None else self.epochs,
            prune_rates=rate,
            rewind_epoch=self.rewind_step,
            rewinding=self.rewinding,
            control_levels=self._list_control_levels() or "none",
            num_replicates=self.replicates,
            seed=self.seed,
            learning_rate=LEARNING_RATE if self.learning_rate is None else self.learning_rate,
            evaluation_dataloader=loaded.test_batches,
            loss_fn=loaded.loss_fn,
            run_folder=self.output,
            accept_changed_environment=self.accept_changed_environment,
            progress=True,
            logger=loggers,
            executor=executor,
        )

    def _list_control_levels(self) -> tuple[int, ...]:
        last = (self.levels,) if self.levels else ()
        return last if self.controls is None else tuple(sorted(set(self.controls)))

    def _change_recipe(self, recipe: "Recipe") -> "Recipe":
        changes: dict[str, Any] = {"num_steps": self.steps, "evaluation_interval": self.evaluate_every}
        if self.learning_rate is not None:
            changes["optimizer_arguments"] = {**recipe.optimizer_arguments, "lr": self.learning_rate}
        return replace(recipe, **{name: value for name, value in changes.items() if value is not None})

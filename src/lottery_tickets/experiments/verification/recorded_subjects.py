"""What a run was made with, once more: by name from its plan, or from a caller's model and data."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from lottery_tickets._core.measuring.performance import Measurement, MetricFunction, MetricName
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.reading import naming
from lottery_tickets._core.states import load_whole_state
from lottery_tickets._core.training.trainer_function import TrainerFunction
from lottery_tickets.experiments.adam_trainer import AdamTrainer
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.workload_subject import WorkloadSource, WorkloadSubject
from lottery_tickets.masks.mask import Mask
from lottery_tickets.workloads.recipes import Recipe


def create_workload_subject(
    run: str | Path, *, folder: str | Path | None = None, device: str | None = None
) -> WorkloadSubject:
    """Returns the workload that a run of the command line was made with; its data is loaded by name.

    Args:
        run: The run folder. A ticket that was given, and its starting weights, are taken from it.
        folder: Of the IDX files, where the data is read from such.
        device: Where to compute; the one that trained when None.

    Raises:
        ValueError: When the run was made from Python, where models and data have no names; or a name is unknown.
    """
    experiment = ExperimentFolder.read(Path(run))
    settings = experiment.plan.subject
    if "workload" not in settings:
        raise ValueError(
            f"{run} is of a network of its maker's own, so its figures can be measured again only with that model and "
            "its data; at the shell name them by --from module:function, in Python call verify_run(run, "
            "create_caller_subject(run, model, dataloader, ...)) of lottery_tickets.experiments.verification"
        )
    try:
        data, model = settings["workload"].split("/")
        recipe = Recipe.from_dict(settings["recipe"])
        where = device or settings["device"]
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{run} must name its workload, but: {error!r}; was it altered?") from error
    start = None if settings.get("initial_sha256") is None else experiment.load_start(Training(0, 0, "ticket"))
    place = None if folder is None else Path(folder)
    return WorkloadSource(data, model, place, recipe, where, _load_given_ticket(experiment), start)()


def create_caller_subject(
    run: str | Path,
    model: nn.Module,
    dataloader: Iterable[Any],
    *,
    trainer_fn: TrainerFunction | None = None,
    evaluation_dataloader: Iterable[Any] | None = None,
    loss_fn: LossFunction | None = None,
    metric: MetricName | MetricFunction = "auto",
    higher_is_better: bool = True,
    initialise_fn: Callable[[nn.Module], object] | None = None,
    learning_rate: float = 1e-3,
    use_recorded_start: bool = False,
) -> CallerSubject:
    """Returns the model and data that a run from Python was made with, to be measured again; nothing is trained.

    Args:
        run: The run folder.
        model: With the weights that the run was begun with. It has them again after `verify_run`.
        dataloader: What was trained on.
        trainer_fn: As it was given; the default trainer when None.
        evaluation_dataloader: What was measured on; `dataloader` when None.
        loss_fn: As it was given.
        metric: As it was given.
        higher_is_better: As it was given.
        initialise_fn: As it was given.
        learning_rate: Of the default trainer.
        use_recorded_start: Whether the model takes the starting weights that the run keeps, where it keeps them: all
            runs but those that rewind to a later step.

    Raises:
        ValueError: When the folder is of no run made from Python, or its weights do not fit the model.
    """
    experiment = ExperimentFolder.read(Path(run))
    plan = experiment.plan
    if "layers" not in plan.subject:
        raise ValueError(
            f"{run} must be a run made from Python, but is one of a workload; create_workload_subject has it"
        )
    ticket = _load_given_ticket(experiment)
    if use_recorded_start and (plan.rewind_step == 0 or plan.is_parted):
        with naming("the starting weights of the run", "fit the model"):
            load_whole_state(model, experiment.load_start(plan.find_first(0)))
    return CallerSubject(
        model,
        dataloader,
        trainer_fn or AdamTrainer(learning_rate, loss_fn),
        list(plan.subject["layers"]),
        plan.num_steps,
        evaluation_dataloader,
        Measurement(loss_fn, metric, higher_is_better),
        initialise_fn,
        ticket,
        seed=plan.seed if _is_about_given_weights(plan) else 0,
        has_one_start=_is_about_given_weights(plan),
    )


def _load_given_ticket(folder: ExperimentFolder) -> Mask | None:
    return folder.load_mask(Training(0, 1, "ticket")) if folder.plan.trains_given_ticket else None


def _is_about_given_weights(plan: ExperimentPlan) -> bool:
    """A ticket trained again and pairs start from one state and are measured under the run's own seed."""
    return plan.ticket_sha256 is not None or plan.is_parted

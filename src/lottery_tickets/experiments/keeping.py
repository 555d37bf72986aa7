"""Where a caller's trainings are kept, what they are told from others by, and the one way to run them there."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from lottery_tickets._core.determinism import one_thread
from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.folders import Grow, find_differences
from lottery_tickets._core.loggers import Logger
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets.experiments.caller_subject import CallerSubject
from lottery_tickets.experiments.elsewhere.tasks import Executor
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.growth import grow_plan
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.run import run_experiment


@final
@dataclass(frozen=True)
class Keeping:
    """Where a caller's trainings are kept, and what they are told from others by.

    Attributes:
        run_folder: Keeps every training, so that the same call goes on; None uses a temporary folder.
        accept_changed_environment: Whether to go on in a folder that another environment began.
        trainer_id: The caller's name for the trainer.
        data_id: The caller's name for the data.
        progress: Whether to show a bar.
        logger: See `run_experiment`.
        executor: See `run_experiment`; None trains here, one replicate after the other.
    """

    run_folder: str | Path | None = None
    accept_changed_environment: bool = False
    trainer_id: str | None = None
    data_id: str | None = None
    progress: bool = False
    logger: Logger | Iterable[Logger] | None = None
    executor: Executor | None = None

    @contextmanager
    def running(
        self, subject: CallerSubject, plan: ExperimentPlan, made_by: str, grow: Grow = grow_plan
    ) -> Iterator[tuple[ExperimentFolder, dict[str, Any]]]:
        """Trains what is missing; gives the folder with the plan that it holds, and the results.

        Args:
            subject: The caller's model and trainer.
            plan: What to train.
            made_by: Which function goes on with the folder.
            grow: Joins the plan of the folder with this one.

        Raises:
            OSError: As `run_experiment`.
            TypeError: As `run_experiment`.
            ValueError: As `run_experiment`.
        """
        together, folder = subject.together, self.run_folder
        if self.executor is not None and together is not ALONE:
            raise ValueError(
                f"executor= must be None where {together.num_processes} processes train one model, but is given; these "
                "train its replicates one after the other"
            )
        with one_thread() if self.executor is not None else nullcontext():  # as its workers train
            environment = {**describe_environment(of_threads=True), **_describe_processes(subject)}
        _check_alike(together, plan, environment)
        with together.led(
            lambda: tempfile.TemporaryDirectory() if folder is None else nullcontext(str(folder))
        ) as place:
            identities = together.ask_first(
                lambda: subject.identify(self.trainer_id, self.data_id) if folder is not None else {}
            )
            asked = ExperimentFolder(
                Path(place), plan, environment, made_by, identities, together=together, shards=subject.shards
            )
            results = run_experiment(
                asked,
                lambda: subject,
                executor=self.executor,
                grow=grow,
                accept_changed_environment=self.accept_changed_environment,
                progress=self.progress,
                logger=self.logger,
            )
            yield replace(asked, plan=ExperimentPlan.from_dict(results["plan"])), results


def _describe_processes(subject: CallerSubject) -> dict[str, Any]:
    """Returns what decides the last bits where several processes train: their number, and how weights are sharded."""
    if subject.together is ALONE:
        return {}
    pieces = {} if subject.shards is None else subject.shards.pieces
    placements = {str(piece.placements) for piece in pieces.values() if piece.mesh is not None}
    return {"num_processes": subject.together.num_processes, "placements": sorted(placements)}


def _check_alike(together: Together, plan: ExperimentPlan, environment: Mapping[str, Any]) -> None:
    """Raises in all processes where one was called with other arguments, or differs in what decides the last bits."""
    found = together.gather(lambda: {"plan": plan.to_dict(), "environment": dict(environment)})
    for place, other in enumerate(found):
        if odd := sorted(find_differences(found[0], other)):
            raise ValueError(
                "all processes that train a model must call this with the same arguments in the same environment, but "
                f"in the first and in number {place} these differ: {'; '.join(odd)}"
            )

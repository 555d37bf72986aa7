"""Where a caller's trainings are kept, what they are told from others by, and the one way to run them there."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lottery_tickets._core.determinism import one_thread
from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.folders import Grow
from lottery_tickets._core.loggers import Logger
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
        with tempfile.TemporaryDirectory() if self.run_folder is None else nullcontext(self.run_folder) as place:
            identities = {} if self.run_folder is None else subject.identify(self.trainer_id, self.data_id)
            with one_thread() if self.executor is not None else nullcontext():  # as its workers train
                environment = describe_environment(of_threads=True)
            results = run_experiment(
                ExperimentFolder(Path(place), plan, environment, made_by, identities),
                lambda: subject,
                executor=self.executor,
                grow=grow,
                accept_changed_environment=self.accept_changed_environment,
                progress=self.progress,
                logger=self.logger,
            )
            yield ExperimentFolder.read(Path(place)), results

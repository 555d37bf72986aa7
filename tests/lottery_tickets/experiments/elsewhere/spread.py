"""Short experiments to be spread over workers, and executors that are as bad as engines get."""

import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.pruning_results import PruningResults
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSource
from tests.models import make_mlp

NUM_STEPS = 20


def read_all(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def list_trainings(run: Path) -> dict[str, int]:
    """Returns the trainings that are there, each with what tells whether it was written again."""
    return {str(path.relative_to(run)): path.stat().st_ino for path in run.glob("replicate-*/level-*")}


def wait_until(holds: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def make_source(num_steps: int = NUM_STEPS) -> WorkloadSource:
    source = WorkloadSource("digits", "lenet-300-100")
    recipe = replace(source().workload.recipe, num_steps=num_steps, evaluation_interval=num_steps)
    return replace(source, recipe=recipe)


def make_folder(
    place: Path, source: WorkloadSource, *, num_replicates: int = 2, num_levels: int = 1
) -> ExperimentFolder:
    """Returns the folder of a run with a training for each level of each replicate."""
    subject = source()
    recipe = subject.workload.recipe
    plan = ExperimentPlan(
        subject=subject.describe(),
        schedule=PruningSchedule(tuple(recipe.prune_rates.items()), recipe.scope),
        num_levels=num_levels,
        num_steps=recipe.num_steps,
        num_replicates=num_replicates,
    )
    return ExperimentFolder(place, plan)


class Shuffled(DataLoader[Any]):
    """Batches in an order that the seed decides."""

    def __init__(self) -> None:
        inputs = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
        super().__init__(TensorDataset(inputs, torch.arange(24) % 3), batch_size=8, shuffle=True)


def train(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
    """Trains by SGD, with dropout's draws from the global generators."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            nn.functional.cross_entropy(model(nn.functional.dropout(inputs, 0.1)), targets).backward()
            optimizer.step()
            optimizer.zero_grad()


def prune(run_folder: Path, trainer_fn: Any = train, **settings: Any) -> PruningResults:  # noqa: ANN401 - of many types
    """Prunes a caller's model in two rounds, in two replicates."""
    return compute_iterative_magnitude_pruning(
        make_mlp(torch.float32, (6, 10, 3), seed=0),
        Shuffled(),
        0.4,
        trainer_fn=trainer_fn,
        num_epochs=2,
        prune_rates=0.3,
        num_replicates=2,
        run_folder=run_folder,
        **settings,
    )


@final
class Job:
    """A call that is made when its result is asked for."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call, self.is_cancelled = call, False

    def done(self) -> bool:
        return True

    def result(self) -> object:
        return self.call()

    def cancel(self) -> None:
        self.is_cancelled = True


class Elsewhere:
    """An executor that is nothing but `submit`: calls are pickled, and made when they are asked for."""

    def __init__(self, around: Callable[[Callable[[], object]], object] = lambda call: call()) -> None:
        self.around, self.jobs = around, list[Job]()

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> Job:  # noqa: ANN401 - whatever it takes
        pickled = pickle.dumps((function, arguments))

        def call() -> object:
            called, given = pickle.loads(pickled)
            return self.around(lambda: called(*given))

        self.jobs.append(Job(call))
        return self.jobs[-1]

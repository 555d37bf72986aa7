"""The trainings of `connectivity`: at each step or epoch where copies part, an experiment in a folder of its own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.held_results import list_run_caveats

if TYPE_CHECKING:
    from torch import Tensor

    from lottery_tickets import Mask
    from lottery_tickets.connectivity.lines import ConnectivityResults
    from lottery_tickets.experiments.elsewhere.tasks import Executor
    from lottery_tickets.experiments.workload_subject import WorkloadSource
    from unified_model_analysis.networks import LoadedNetwork

TRAININGS: Final = "trainings"
DENSE: Final = "dense"
SUBNETWORK: Final = "subnetwork"
LEVELS: Final[Mapping[str, int]] = {DENSE: 0, SUBNETWORK: 1}


@dataclass(frozen=True)
class WorkloadPairs:
    """Pairs of copies of a workload's network: trained where they are missing, read where they are there.

    Attributes:
        results: The results folder, which holds them.
        source: The network, its data and recipe; its ticket is the subnetwork.
        num_replicates: Pairs at each step.
        seed: Names the replicates and their data orders.
        num_workers: Processes that share the replicates.
        accept_changed_environment: Whether to go on where another environment began.
        executor: Trains the replicates in place of processes here.
    """

    results: Path
    source: "WorkloadSource"
    num_replicates: int
    seed: int
    num_workers: int
    accept_changed_environment: bool = False
    executor: "Executor | None" = None

    def list_ends(self, network: str, step: int) -> "Iterator[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]":
        """Yields where the two copies end, for each replicate.

        Args:
            network: `DENSE` or `SUBNETWORK`.
            step: At which they part.
        """
        from lottery_tickets.connectivity.pairs import load_pair, plan_pairs
        from lottery_tickets.experiments.folder import CONNECTIVITY, ExperimentFolder
        from lottery_tickets.experiments.run import run_experiment

        subject, level = self.source(), LEVELS[network]
        plan = plan_pairs(
            subject,
            num_steps=subject.workload.recipe.num_steps,
            rewind_step=step,
            levels=(level,),
            num_replicates=self.num_replicates,
            seed=self.seed,
        )
        folder = ExperimentFolder(find_place(self.results, step), plan, made_by=CONNECTIVITY)
        run_experiment(
            folder,
            self.source,
            num_workers=self.num_workers,
            executor=self.executor,
            accept_changed_environment=self.accept_changed_environment,
            progress=True,
        )
        for replicate in range(self.num_replicates):
            pair = load_pair(folder, replicate, level)
            yield pair.first, pair.second


@dataclass(frozen=True, eq=False)
class OwnPairs:
    """Pairs of copies of a network of one's own, trained by its trainer from the weights that it has.

    Attributes:
        results: The results folder, which holds them.
        loaded: The network and its data.
        num_epochs: Of a whole training.
        learning_rate: Of Adam, where there is no trainer.
        mask: Of the subnetwork.
        settings: Further arguments of `compute_linear_connectivity`.
    """

    results: Path
    loaded: "LoadedNetwork"
    num_epochs: int
    learning_rate: float | None
    mask: "Mask | None"
    settings: Mapping[str, Any]

    def check(self) -> None:
        """Raises a ValueError, before anything is trained, where the network is no classifier: it has no error."""
        from lottery_tickets import compute_performance

        found = compute_performance(self.loaded.network, self.loaded.measured, loss_fn=self.loaded.loss_fn)
        if found["accuracy"] is None:
            raise ValueError(
                "--rewind-steps and --search need a classifier, whose errors can be counted, but the accuracy of this "
                "network is not known; compare two trainings of it by --checkpoints, whose losses are measured"
            )

    def measure(self, network: str, epoch: int) -> "list[ConnectivityResults]":
        """Returns one measured pair a replicate.

        Args:
            network: `DENSE` or `SUBNETWORK`.
            epoch: After which they part.
        """
        from lottery_tickets import compute_linear_connectivity

        loaded, place = self.loaded, find_place(self.results, epoch)
        found = compute_linear_connectivity(
            loaded.network,
            loaded.measured,
            trainer_fn=loaded.choose_trainer(self.learning_rate),
            num_epochs=self.num_epochs,
            rewind_epoch=epoch,
            mask=None if network == DENSE else self.mask,
            train_dataloader=None if loaded.test_batches is None else loaded.batches,
            statistics_dataloader=loaded.batches,
            loss_fn=loaded.loss_fn,
            run_folder=place if network == DENSE else place.with_name(f"{place.name}-{network}"),
            progress=True,
            **self.settings,
        )
        return [
            {
                **found,
                "pairs": [pair],
                "instability": pair["instability"],
                "stable": pair["stable"],
                "barrier": pair["barrier"],
            }
            for pair in found["pairs"]
        ]


def find_place(results: Path, step: int) -> Path:
    """Returns the run folder of the trainings that part at a step.

    Args:
        results: The results folder.
        step: At which they part.
    """
    return results / TRAININGS / f"step-{step}"


def list_runs(folder: Path) -> list[Path]:
    """Returns the run folders that results consist of: those of all steps, or the folder itself.

    Args:
        folder: What a command wrote into.
    """
    runs = [path for path in (folder / TRAININGS).glob("step-*") if path.is_dir()]
    return sorted(runs, key=lambda path: (len(path.name), path.name)) or [folder]


def list_caveats(results: Path) -> list[str]:
    """Returns what the trainings of all steps could not make sure of, in sentences.

    Args:
        results: The results folder.
    """
    from lottery_tickets.experiments.folder import KIND

    return list(dict.fromkeys(said for run in list_runs(results) for said in list_run_caveats(run, KIND)))

"""`lottery-tickets connectivity`: are two trainings linearly connected, and from which step on?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.connectivity_summary import format_step, report_line, report_steps, summarise_step
from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.held_results import hold_results
from unified_model_analysis.networks import LoadedNetwork, change_num_steps, load_own, refuse_options
from unified_model_analysis.options import (
    ComputationOptions,
    ExecutorOptions,
    FolderOutput,
    WorkloadOptions,
    list_settings,
)
from unified_model_analysis.own_networks import EPOCHS
from unified_model_analysis.workload_pairs import DENSE, SUBNETWORK, OwnPairs, WorkloadPairs, list_caveats

if TYPE_CHECKING:
    from torch import Tensor

    from lottery_tickets.connectivity.lines import ConnectivityResults
    from lottery_tickets.storage import Record
    from lottery_tickets.workloads import Workload

NUM_IMAGES: Final = 1000  # a batch; bounds the memory of activations

OF_IMAGES: Final = ("steps", "test_images", "statistics_images")
# From a call to the one that goes on: what is trained already stays, and all is measured again.
MAY_CHANGE: Final = frozenset(
    {"rewind_steps", "replicates", "search", "threshold", "grid_points", "test_images", "statistics_images"}
    | {"device", "workers", "accept_changed_environment"}
)


@dataclass(frozen=True)
class Connectivity(ComputationOptions, ExecutorOptions, WorkloadOptions, FolderOutput):
    """Measure whether networks are linearly connected: the error along the straight line between two of them.

    With --checkpoints: between two trained networks. With --rewind-steps: between copies that are trained here by the
    workload's recipe (Frankle & Carbin 2019), share k steps, and then see the data in two orders; below 2 points of
    error above the ends, training is stable to its noise from step k on (Frankle et al. 2020, arXiv 1912.05671). With
    --from the network's own trainer trains, steps are epochs, its batches must come in an order that a seed decides
    (a DataLoader with shuffle=True), and all replicates start from the weights that it comes with, or --start.

    Trainings are kept in OUTPUT/trainings, an experiment for each step, which `verify OUTPUT` re-checks. Stopped at
    any moment, the same command goes on; more steps and replicates may be asked for later.

    Example: `lottery-tickets connectivity --output connectivity --checkpoints trained.safetensors other.safetensors
    --grid-points 3`

    Attributes:
        output: Folder for results.json, the figure and the trainings.
        checkpoints: Two files with weights of the workload's network, .safetensors or torch.
        rewind_steps: The steps k at which copies part; of a network of one's own epochs.
        replicates: Pairs at each step; intervals need at least 3.
        start: Starting weights of all replicates, at step 0; fresh ones for each when not given. A mask needs those
            that it was found from.
        mask: A mask file; its subnetwork is trained from each step beside the dense network.
        search: Whether to find the earliest stable step by bisection, up to the largest of --rewind-steps, or over the
            whole training without.
        threshold: Instability below which training is stable, as a fraction.
        grid_points: Points on each line, the ends included.
        steps: Training steps of each training; the recipe's own when not given.
        epochs: Epochs of each training of a network of one's own, 10 when not given.
        learning_rate: Of Adam, for a network of one's own without a trainer_fn, 0.001 when not given.
        test_images: The first images of the test set, on which errors are measured; all when not given.
        statistics_images: Training images that batch-norm statistics are computed from at each point.
        seed: Names the replicates and their data orders.
        device: Where to train.
        accept_changed_environment: Go on with trainings that were begun with other versions or on another machine.
    """

    checkpoints: tuple[Path, Path] | None = None
    rewind_steps: tuple[int, ...] = ()
    replicates: int = 3
    start: Path | None = None
    mask: Path | None = None
    search: bool = False
    threshold: float = 0.02
    grid_points: int = 30
    steps: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    test_images: int | None = None
    statistics_images: int = 1000
    accept_changed_environment: bool = False

    def run(self) -> int:
        """Trains what is missing, measures, saves and shows; returns the exit code."""
        check_report_extra()
        from lottery_tickets.storage import Record, load_weights
        from lottery_tickets.utils import check_count, check_device, check_share
        from lottery_tickets.workloads import load_workload

        if (self.checkpoints is None) == (not self.rewind_steps and not self.search):
            raise ValueError("say either --checkpoints, or --rewind-steps or --search")
        if self.mask is not None and self.start is None:
            raise ValueError("--mask goes with the weights that it was found from; give them by --start")
        check_count("--replicates", self.replicates)
        check_count("--statistics-images", self.statistics_images)
        if self.workers is not None:
            check_count("--workers", self.workers)
        if self.test_images is not None:
            check_count("--test-images", self.test_images)
        check_share("--threshold", self.threshold)
        check_device(self.device)
        self.check_executor()
        if self.checkpoints is not None:
            refuse_options(self, "two checkpoints, which are only measured", "executor")
        record = Record("connectivity" if self.checkpoints is None else "lines", list_settings(self))
        if self.checkpoints is not None and (self.mask is not None or self.start is not None):
            raise ValueError("--mask and --start are for trainings; leave them out with --checkpoints")
        if self.source is not None:
            refuse_options(self, "a network of one's own", *OF_IMAGES, *self.of_workloads_alone)
            loaded = load_own(self)
            loaded = replace(loaded, network=loaded.network.to(self.device))
            with hold_results(self.output, "connectivity", self, MAY_CHANGE):
                self._measure_own(loaded, record)
            return 0
        refuse_options(self, "a workload, whose recipe says it", "epochs", "learning_rate")
        workload = load_workload(self.data, self.model, folder=self.folder)
        with hold_results(self.output, "connectivity", self, MAY_CHANGE):
            if self.checkpoints is None:
                self._train_and_compare(workload, record)
            else:
                found = self._measure(workload, *map(load_weights, self.checkpoints))
                report_line(workload.name, found, record, self.output)
        return 0

    def _train_and_compare(self, workload: "Workload", record: "Record") -> None:
        """Trains pairs of copies of a workload's network and measures them."""
        from lottery_tickets import Mask
        from lottery_tickets.experiments.workload_subject import WorkloadSource
        from lottery_tickets.storage import load_weights

        workload = change_num_steps(workload, self.steps)
        self._check_steps(workload.recipe.num_steps)
        source = WorkloadSource(
            self.data,
            self.model,
            self.folder,
            workload.recipe,
            self.device,
            None if self.mask is None else Mask.load(self.mask),
            None if self.start is None else load_weights(self.start),
        )
        with self.opened_executor(self.output) as executor:
            settings = (self.replicates, self.seed, self.num_workers, self.accept_changed_environment, executor)
            pairs = WorkloadPairs(self.output, source, *settings)

            def measure(network: str, step: int) -> "list[ConnectivityResults]":
                return [self._measure(workload, *ends) for ends in pairs.list_ends(network, step)]

            self._compare(workload.name, measure, workload.recipe.num_steps, record)

    def _measure_own(self, loaded: "LoadedNetwork", record: "Record") -> None:
        """Measures two checkpoints of a network of one's own, or trains pairs of copies of it and measures those."""
        from lottery_tickets import Mask, compute_linear_connectivity
        from lottery_tickets.storage import load_into, load_weights

        settings: dict[str, Any] = {"num_points": self.grid_points, "threshold": self.threshold}
        if self.checkpoints is not None:
            found = compute_linear_connectivity(
                loaded.network,
                loaded.measured,
                *map(load_weights, self.checkpoints),
                statistics_dataloader=loaded.batches,
                loss_fn=loaded.loss_fn,
                **settings,
            )
            report_line(loaded.name, found, record, self.output)
            return
        num_epochs = EPOCHS if self.epochs is None else self.epochs
        self._check_steps(num_epochs)
        if self.start is not None:
            load_into(loaded.network, self.start)
        settings |= {"num_replicates": self.replicates, "seed": self.seed}
        settings |= {"accept_changed_environment": self.accept_changed_environment}
        mask = None if self.mask is None else Mask.load(self.mask)
        with self.opened_executor(self.output) as executor:
            settings |= {"executor": executor}
            pairs = OwnPairs(self.output, loaded, num_epochs, self.learning_rate, mask, settings)
            pairs.check()
            self._compare(loaded.name, pairs.measure, num_epochs, record)

    def _check_steps(self, num_steps: int) -> None:
        if outside := [step for step in self.rewind_steps if not 0 <= step < num_steps]:
            raise ValueError(f"--rewind-steps must be from 0 to {num_steps - 1}, got {outside}")

    def _compare(
        self,
        name: str,
        measure_pairs: "Callable[[str, int], list[ConnectivityResults]]",
        num_steps: int,
        record: "Record",
    ) -> None:
        """Measures pairs at each step that is asked for or that a search looks at, and reports them."""
        from lottery_tickets import find_stable_rewinding_step

        rows: dict[tuple[str, int], dict[str, Any]] = {}

        def measure(network: str, step: int) -> float:
            if (network, step) not in rows:
                row = summarise_step(network, step, measure_pairs(network, step))
                print(f"{network}, step {step}: {format_step(row)[2]} points", flush=True)
                rows[network, step] = row
            return float(rows[network, step]["instability"]["mean"])

        networks = [DENSE] if self.mask is None else [DENSE, SUBNETWORK]
        for step in sorted(set(self.rewind_steps)):
            for network in networks:
                measure(network, step)
        last = max(self.rewind_steps, default=num_steps - 1)
        searches = {
            network: find_stable_rewinding_step(partial(measure, network), last, threshold=self.threshold)
            for network in (networks if self.search else [])
        }
        in_order = [rows[key] for key in sorted(rows)]
        settings = {"threshold": self.threshold, "num_points": self.grid_points, "seed": self.seed}
        caveats = list_caveats(self.output)
        shown: dict[str, Any] = {"settings": settings, "record": record, "folder": self.output, "caveats": caveats}
        report_steps(name, in_order, searches, **shown)

    def _measure(
        self, workload: "Workload", first: "Mapping[str, Tensor]", second: "Mapping[str, Tensor]"
    ) -> "ConnectivityResults":
        from lottery_tickets import compute_linear_connectivity
        from lottery_tickets.utils import make_generator
        from lottery_tickets.workloads import create_image_batches

        data = workload.data
        tested = create_image_batches(
            data.test_inputs, data.test_targets, batch_size=NUM_IMAGES, num_images=self.test_images
        )
        seen = create_image_batches(
            data.train_inputs,
            data.train_targets,
            batch_size=workload.recipe.batch_size,
            num_images=self.statistics_images,
            generator=make_generator(self.seed, "statistics"),
        )
        return compute_linear_connectivity(
            workload.build_model(make_generator(0)).to(self.device),  # any weights: both ends are given
            tested,
            first,
            second,
            num_points=self.grid_points,
            threshold=self.threshold,
            statistics_dataloader=seen,
        )

"""`lottery-tickets connectivity`: are two trainings linearly connected, and from which step on?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.checkpoints import load_checkpoint
from unified_model_analysis.experiment_summary import check_report_extra

if TYPE_CHECKING:
    from torch import Tensor

    from lottery_tickets.connectivity.lines import ConnectivityResults
    from lottery_tickets.experiments.pairs import TrainedPairs
    from lottery_tickets.workloads import Workload

RESULTS: Final = "results.json"
PATH_FIGURE: Final = "path.png"
FIGURE: Final = "instability.png"
PAIRS: Final = "pairs"
BATCH: Final = 1000  # images; bounds the memory of activations
HEADINGS: Final = ("step", "network", "instability, points", "stable", "loss barrier", "accuracy, %")


@dataclass(frozen=True)
class Connectivity:
    """Measure whether networks are linearly connected: the error along the straight line between two of them.

    With --checkpoints: between two trained networks. With --rewind-steps: between copies that are trained here by the
    workload's recipe (Frankle & Carbin 2019), share k steps, and then see the data in two orders; below 2 points of
    error above the ends, training is stable to its noise from step k on (Frankle et al. 2020, arXiv 1912.05671).

    Trainings are kept in RESULTS/pairs. Stopped at any moment, the same command goes on; more steps and replicates may
    be asked for later.

    Attributes:
        results: Folder for results.json, the figure and the trainings.
        checkpoints: Two files with weights of the workload's network, .safetensors or torch.
        rewind_steps: The steps k at which copies part.
        replicates: Pairs at each step; intervals need at least 3.
        start: Weights at step 0 of all replicates; fresh ones for each when not given. A mask needs those that it was
            found from.
        mask: A mask file; its subnetwork is trained from each step beside the dense network.
        search: Whether to find the earliest stable step by bisection, up to the largest of --rewind-steps, or over the
            whole training without.
        threshold: Instability below which training is stable, as a fraction.
        points: Alphas on each line, the ends included.
        data: Data set.
        model: Network.
        folder: Folder of the IDX files, for "mnist-format", or for Fashion-MNIST at another place.
        steps: Training steps of each training; the recipe's own when not given.
        test_images: The first images of the test set, on which errors are measured; all when not given.
        statistics_images: Training images that batch-norm statistics are computed from at each point.
        seed: Names the replicates and their data orders.
        device: Where to train.
    """

    results: Annotated[Path, tyro.conf.Positional]
    checkpoints: tuple[Path, Path] | None = None
    rewind_steps: tuple[int, ...] = ()
    replicates: int = 3
    start: Path | None = None
    mask: Path | None = None
    search: bool = False
    threshold: float = 0.02
    points: int = 30
    data: Literal["digits", "fashion-mnist", "mnist-format"] = "digits"
    model: Literal["lenet-300-100", "conv-2", "conv-4", "conv-6", "resnet-20"] = "lenet-300-100"
    folder: Path | None = None
    steps: int | None = None
    test_images: int | None = None
    statistics_images: int = 1000
    seed: int = 0
    device: str = "cpu"

    def run(self) -> int:
        """Trains what is missing, measures, saves and shows; returns the exit code."""
        check_report_extra()
        from lottery_tickets._core.checks import check_count, check_device, check_share
        from lottery_tickets.workloads import load_workload

        if (self.checkpoints is None) == (not self.rewind_steps and not self.search):
            raise ValueError("say either --checkpoints, or --rewind-steps or --search")
        if self.mask is not None and self.start is None:
            raise ValueError("--mask goes with the weights that it was found from; give them by --start")
        for option, count in (("--replicates", self.replicates), ("--statistics-images", self.statistics_images)):
            check_count(option, count)
        check_share("--threshold", self.threshold)
        check_device(self.device)
        workload = load_workload(self.data, self.model, folder=self.folder)
        if self.checkpoints is not None:
            if self.mask is not None or self.start is not None:
                raise ValueError("--mask and --start are for trainings; leave them out with --checkpoints")
            self._compare(workload, *map(load_checkpoint, self.checkpoints))
        else:
            self._train_and_compare(workload)
        return 0

    def _compare(self, workload: "Workload", first: "Mapping[str, Tensor]", second: "Mapping[str, Tensor]") -> None:
        from lottery_tickets import save_results
        from statistical_report_generator.figures.connectivity import draw_error_path
        from statistical_report_generator.figures.experiment import save_figure

        found = self._measure(workload, first, second)
        save_results({"network": workload.name, **found}, self.results / RESULTS)
        save_figure(draw_error_path(found, workload.name), self.results / PATH_FIGURE)
        pair = found["pairs"][0]
        rows = [("alpha", "error, %", "loss")]
        for alpha, error, loss in zip(pair["alphas"], pair["errors"] or [], pair["losses"], strict=True):
            rows.append((f"{alpha:.3f}", _form(error, 100, ".2f"), _form(loss, 1, ".4f")))
        _print_table(rows)
        verdict = "linearly connected" if found["stable"] else "not linearly connected"
        print(
            f"{workload.name}: {verdict}: instability {_form(found['instability'], 100, '.2f')} points of error, loss "
            f"barrier {_form(found['barrier'], 1, '.4f')}"
        )
        print(f"figure: {self.results / PATH_FIGURE}, results: {self.results / RESULTS}")

    def _train_and_compare(self, workload: "Workload") -> None:
        from lottery_tickets import Mask
        from lottery_tickets.experiments.pairs import DENSE, SUBNETWORK, TrainedPairs
        from lottery_tickets.experiments.workload_subject import WorkloadSubject

        recipe = workload.recipe if self.steps is None else replace(workload.recipe, num_steps=self.steps)
        workload = replace(workload, recipe=recipe)
        if odd := [step for step in self.rewind_steps if not 0 <= step < recipe.num_steps]:
            raise ValueError(f"--rewind-steps must be from 0 to {recipe.num_steps - 1}, got {odd}")
        pairs = TrainedPairs(
            folder=self.results / PAIRS,
            subject=WorkloadSubject(workload, self.device),
            seed=self.seed,
            start=None if self.start is None else load_checkpoint(self.start),
            mask=None if self.mask is None else Mask.load(self.mask),
        )
        rows: dict[tuple[str, int], dict[str, Any]] = {}

        def measure(network: str, step: int) -> float:
            if (network, step) not in rows:
                rows[network, step] = self._make_row(workload, pairs, network, step)
                print(f"{network}, step {step}: {_form_row(rows[network, step])[2]} points", flush=True)
            return float(rows[network, step]["instability"]["mean"])

        networks = [DENSE] if self.mask is None else [DENSE, SUBNETWORK]
        with pairs.opened():
            for step in sorted(set(self.rewind_steps)):
                for network in networks:
                    measure(network, step)
            searches = {network: self._search(recipe.num_steps, network, measure) for network in networks}
        in_order = [rows[key] for key in sorted(rows)]
        self._report(workload.name, in_order, searches if self.search else {})

    def _search(self, num_steps: int, network: str, measure: Any) -> Any:  # noqa: ANN401 - a closure; JSON
        from lottery_tickets import find_stable_rewinding_step

        if not self.search:
            return None
        last = max(self.rewind_steps, default=num_steps - 1)
        return find_stable_rewinding_step(lambda step: measure(network, step), last, threshold=self.threshold)

    def _make_row(self, workload: "Workload", pairs: "TrainedPairs", network: str, step: int) -> dict[str, Any]:
        """Returns what is found at one step, with intervals over the replicates."""
        from statistical_report_generator.inference.intervals import compute_t_interval

        found = [self._measure(workload, *pairs.find_ends(r, step, network)) for r in range(self.replicates)]
        lines = [pair["pairs"][0] for pair in found]
        errors = [((line["first"]["error"] or 0.0) + (line["second"]["error"] or 0.0)) / 2 for line in lines]
        barriers = [pair["barrier"] for pair in found if pair["barrier"] is not None]
        return {
            "step": step,
            "network": network,
            "num_pairs": len(found),
            "num_stable": sum(bool(pair["stable"]) for pair in found),
            "instability": asdict(compute_t_interval([pair["instability"] or 0.0 for pair in found])),
            "barrier": asdict(compute_t_interval(barriers)) if len(barriers) == len(found) else None,
            "accuracy": asdict(compute_t_interval([1 - error for error in errors])),
            "pairs": lines,
        }

    def _measure(
        self, workload: "Workload", first: "Mapping[str, Tensor]", second: "Mapping[str, Tensor]"
    ) -> "ConnectivityResults":
        import torch

        from lottery_tickets import compute_linear_connectivity
        from lottery_tickets._core.determinism import make_generator

        data, size = workload.data, workload.recipe.batch_size
        order = torch.randperm(len(data.train_inputs), generator=make_generator(self.seed, "statistics"))
        chosen = order[: self.statistics_images]
        seen = zip(data.train_inputs[chosen].split(size), data.train_targets[chosen].split(size), strict=True)
        tested = data.test_inputs[: self.test_images].split(BATCH), data.test_targets[: self.test_images].split(BATCH)
        return compute_linear_connectivity(
            workload.build_model(make_generator(0)).to(self.device),
            list(zip(*tested, strict=True)),
            first,
            second,
            num_points=self.points,
            threshold=self.threshold,
            statistics_dataloader=list(seen),
        )

    def _report(self, name: str, rows: Sequence[Mapping[str, Any]], searches: Mapping[str, Any]) -> None:
        from lottery_tickets import save_results
        from statistical_report_generator.figures.connectivity import draw_instability
        from statistical_report_generator.figures.experiment import save_figure

        findings = [
            f"{network}: stable from step {search['step']} on ({search['num_evaluations']} steps looked at)"
            if search["step"] is not None
            else f"{network}: not stable at step {search['last_step']}, the last that was looked at"
            for network, search in searches.items()
        ]
        settings = {"threshold": self.threshold, "num_points": self.points, "seed": self.seed}
        results = {"network": name, "settings": settings, "rows": rows, "searches": searches, "findings": findings}
        save_results(results, self.results / RESULTS)
        save_figure(draw_instability({name: rows}, self.threshold), self.results / FIGURE)
        _print_table([HEADINGS, *map(_form_row, rows)])
        for finding in findings:
            print(finding)
        print(f"figure: {self.results / FIGURE}, results: {self.results / RESULTS}")


def _form(value: float | None, scale: float, spec: str) -> str:
    return "-" if value is None else format(scale * value, spec)


def _form_interval(interval: Mapping[str, Any] | None, scale: float, spec: str) -> str:
    if interval is None or interval["low"] is None:
        return _form(None if interval is None else interval["mean"], scale, spec)
    mean, low, high = (_form(interval[name], scale, spec) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _form_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row["step"]),
        str(row["network"]),
        _form_interval(row["instability"], 100, ".2f"),
        f"{row['num_stable']} of {row['num_pairs']}",
        _form_interval(row["barrier"], 1, ".3f"),
        _form_interval(row["accuracy"], 100, ".2f"),
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))

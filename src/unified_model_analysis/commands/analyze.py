"""`lottery-tickets analyze`: every analysis that measures, on one model, and a report of all."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.options import ComputationOptions, ExecutorOptions, FolderOutput, NetworkOptions

if TYPE_CHECKING:
    from torch import nn

NUM_IMAGES: Final = 64  # a batch
NUM_SEQUENCES: Final = 8  # a batch
NUM_BATCHES: Final = 16  # of a language model's text


@dataclass(frozen=True)
class Analyze(ComputationOptions, ExecutorOptions, NetworkOptions, FolderOutput):
    """Analyse a model from all sides, and write a report: robustness, scores, strategies, overlap, landscape.

    The model is a workload's network with the weights of a checkpoint, a language model with text, or what a function
    of yours returns. It says before it starts what it will run and how long that may take. An analysis that fails is
    reported, and the others go on; stopped at any moment, the same command goes on. With --train it also looks for an
    early-bird ticket and prunes iteratively. See docs/analysis.md.

    Example: `lottery-tickets analyze --output analysis --checkpoint trained.safetensors --analyses robustness ticket`

    Attributes:
        output: Folder for the results and the report.
        data: Data set of a workload; its test images are measured on.
        analyses: Names of the analyses to run; all that measure when not given.
        list: Only say which analyses there are.
        train: Whether analyses may train the model.
        model_name: What the report calls the model.
        style: Of the report: "technical", or "summary" without settings and single values.
        report: Whether to make a report.
        sparsity: Fraction removed where one mask is asked for; 0.7 for classification, 0.5 for language models when not
            given.
        sparsities: Sparsities at which strategies are compared.
        num_samples: Samples that scores are computed on; by the model's size when not given.
        batches: Batches that losses are measured on.
        batch_size: Samples a batch, 64 images or 8 sequences when not given.
        grid_points: Points of the landscape in each direction; by the model's size when not given.
        epochs: Epochs of each training, with --train.
    """

    output: Path = Path("analysis")
    analyses: tuple[str, ...] = ()
    list: bool = False
    train: bool = False
    model_name: str | None = None
    style: Literal["technical", "summary"] = "technical"
    report: bool = True
    sparsity: float | None = None
    sparsities: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    num_samples: int | None = None
    batches: int = 4
    batch_size: int | None = None
    grid_points: int | None = None
    epochs: int = 5

    def run(self) -> int:
        """Analyses, saves and shows; returns the exit code."""
        from lottery_tickets.utils import check_count, check_device
        from unified_model_analysis import UnifiedConfig, UnifiedModelAnalyzer, list_analyses

        if self.list:
            for analysis in list_analyses().values():
                print(f"{analysis.name:11}  {analysis.title}{' (trains)' if analysis.trains else ''}")
            return 0
        from unified_model_analysis.networks import refuse_options

        if self.report:
            check_report_extra(pages=True)
        check_device(self.device)
        check_count("--batches", self.batches)
        self.check_executor()
        if not self.train:
            refuse_options(self, "what is not trained; --train trains", "executor")
        refuse_options(self, "analyses, which share one process here", *self.of_workloads_alone)
        name, model, batches, loss_fn = self._load()
        config = UnifiedConfig(
            self.output,
            self.analyses or None,
            self.train,
            self.model_name or name,
            self.report,
            self.style,
            self.sparsity,
            self.sparsities,
            self.num_samples,
            self.batches,
            self.grid_points,
            num_epochs=self.epochs,
            loss_fn=loss_fn,
            seed=self.seed,
        )
        with self.opened_executor(self.output) as config.executor:
            found = UnifiedModelAnalyzer(config).analyze(model.to(self.device), batches)
        failed = any(entry["status"] == "failed" for entry in found["analyses"])
        return ExitCode.NOT_COMPUTED if failed else ExitCode.DONE

    def _load(self) -> "tuple[str, nn.Module, Any, Any]":
        from unified_model_analysis.networks import load_images, load_own, load_text

        if self.source is not None:
            loaded = load_own(self)
        elif self.language_model:
            size = self.batch_size or NUM_SEQUENCES
            loaded = load_text(self, batch_size=size, num_batches=NUM_BATCHES, seed=self.seed)
        elif self.checkpoint is None:
            raise ValueError(
                "there must be a model to analyse; give the trained weights of a workload by --checkpoint, a "
                "--language-model, or --from module:function"
            )
        else:
            loaded = load_images(self, batch_size=self.batch_size or NUM_IMAGES, split="test", seed=self.seed)
        return loaded.name, loaded.network, loaded.batches, loaded.loss_fn

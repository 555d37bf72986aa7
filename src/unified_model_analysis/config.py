"""What the analyzer is to do, in one place: attributes may be set before and afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

# What says where results go and how they are shown, not what they are: it may differ from a call to the next.
SHOWN: Final = ("output_dir", "analyses", "train", "generate_report", "report_style", "progress", "executor")


@dataclass
class UnifiedConfig:
    """Settings of `UnifiedModelAnalyzer`; None leaves the choice to the size of the model.

    Attributes:
        output_dir: Where results and report go; one model, one folder.
        analyses: Names of those to run; when None all that measure, and with `train` also those that train.
        train: Whether analyses may train the model. Each puts it back when it is done.
        name: What the report calls the model; its class when None.
        generate_report: Whether pages are made at the end.
        report_style: "technical", or "summary" without settings and single values.
        target_sparsity: Share removed where one mask is asked for; 0.7 for classification, 0.5 for language models
            when None.
        sparsity_levels: Where strategies are compared.
        num_samples: Samples that scores are computed on.
        num_batches: Batches that losses are measured on, from the beginning of the data.
        grid_points: Of the landscape, each way.
        chunk_size: Of scores, see `ScoringOptions`.
        num_epochs: Of each training.
        learning_rate: Of the default trainer, in analyses that train.
        initialise_fn: Draws fresh weights of the model in place, for iterative pruning; each module's
            `reset_parameters` when None.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        seed: Of all that is drawn.
        gpu_memory_gb: Of the device, 10^9 bytes; asked of the device when None.
        progress: Whether to show bars.
        executor: Trains the replicates of iterative pruning elsewhere, see `compute_iterative_magnitude_pruning`.
    """

    output_dir: str | Path = "analysis"
    analyses: Sequence[str] | None = None
    train: bool = False
    name: str | None = None
    generate_report: bool = True
    report_style: Literal["technical", "summary"] = "technical"
    target_sparsity: float | None = None
    sparsity_levels: Sequence[float] = (0.3, 0.5, 0.7, 0.9)
    num_samples: int | None = None
    num_batches: int = 4
    grid_points: int | None = None
    chunk_size: int | None = None
    num_epochs: int = 5
    learning_rate: float | None = None
    initialise_fn: Any = None
    loss_fn: Any = None
    seed: int = 42
    gpu_memory_gb: float | None = None
    progress: bool = True
    executor: Any = None

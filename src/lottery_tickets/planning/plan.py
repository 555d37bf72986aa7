"""`plan_memory`: what each analysis of a model takes, part by part, what fits, and the batch that does."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypedDict

import torch
from torch import nn

from lottery_tickets._core.batches.samples import count_samples
from lottery_tickets._core.checks import check_count
from lottery_tickets._core.devices import find_free_bytes
from lottery_tickets._core.memory.sizes import ANALYSES, Analysis, ModelSizes, Parts, find_certain
from lottery_tickets._core.memory.stand_in import StandIn
from lottery_tickets._core.notebooks import show_own
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices
from lottery_tickets._core.reading import say_briefly
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets.planning.budget import Budget
from lottery_tickets.planning.expected import Expected, Foreteller
from lottery_tickets.planning.phases import Asked, Foretold, Phase
from lottery_tickets.planning.settings import RecommendedSettings, check_memory, recommend_settings
from lottery_tickets.planning.sources import find_model, make_example

__dir__ = show_own(__name__)

GB: Final = 1e9
logger = logging.getLogger(__name__)


class PlannedAnalysis(TypedDict):
    """What one analysis takes at its largest moment.

    Attributes:
        moment: What is done then.
        parts: Bytes by part where the model is, weights and buffers among them; they add up to `device_bytes`.
        host_parts: Bytes by part on the CPU at this moment.
        device_bytes: Where the model is.
        host_bytes: On the CPU: beside a GPU the most at any moment.
        is_complete: Whether activations are counted; where the model cannot be run without values they are not.
        fits: Whether it does, with a tenth on top; None where the memory is not known.
        largest_batch_size: The samples with which it would fit, by the line through two batch sizes; 0 where none
            does, None where it is not known.
        step: What one step of it is, such as a training step or a batch; empty where it is not known.
        step_seconds: Of one, as the rates of this machine say; None where they were not measured.
        num_steps: Of the whole, by the settings; None where that depends on the data.
        expected_seconds: Of the whole; None where one of both is not known.
    """

    moment: str
    parts: Parts
    host_parts: Parts
    device_bytes: int
    host_bytes: int
    is_complete: bool
    fits: bool | None
    largest_batch_size: int | None
    step: str
    step_seconds: float | None
    num_steps: int | None
    expected_seconds: float | None


class MemoryPlan(TypedDict):
    """What `plan_memory` returns.

    Attributes:
        model: What it is called.
        num_params: Parameters.
        num_prunable: Weights that can be pruned.
        weight_bytes: Of all parameters.
        largest_gradient_bytes: Of the largest parameter.
        batch_size: Samples of a batch.
        num_tokens: Of a sample; None where there are none.
        memory_gb: What there is, 10^9 bytes; None where that is not known.
        on_gpu: Whether that is a GPU's: what lies on the CPU beside it is then not counted against it.
        analyses: By name.
        settings: As `recommend_settings` gives them, with the batch sizes that fit.
        times: What expected times rest on, in words; or why there are none.
        notes: What is left out, in words.
    """

    model: str
    num_params: int
    num_prunable: int
    weight_bytes: int
    largest_gradient_bytes: int
    batch_size: int
    num_tokens: int | None
    memory_gb: float | None
    on_gpu: bool
    analyses: dict[str, PlannedAnalysis]
    settings: RecommendedSettings
    times: str
    notes: list[str]


def plan_memory(
    model: Any,  # noqa: ANN401 - one of four, see Args
    *,
    batch: Any = None,  # noqa: ANN401 - any batch
    batch_size: int | None = None,
    num_tokens: int | None = None,
    gpu_memory_gb: float | None = None,
    analyses: Sequence[Analysis] = ANALYSES,
    training: TrainerSettings | None = None,
    loss_fn: LossFunction | None = None,
    chunk_size: int | None = None,
    offload: bool = False,
    include: Choices | None = None,
    exclude: Choices | None = None,
    dtype: torch.dtype | None = None,
    num_steps: int | None = None,
) -> MemoryPlan:
    """Returns what each analysis of a model takes, part by part, whether it fits, and the largest batch that does.

    And how long it takes, where `lottery-tickets doctor` has measured this machine: the operations of one step are
    counted, each taken to last as long as one of its size lasted at best. A whole is the steps that the recommended
    settings (Fisher samples, grid points), the default levels (robustness) or `num_steps` (trainings) ask for, without
    loading data, and for early-bird without its probe and its checks.

    Nothing is computed and no weight is read: a copy of the model runs on torch's fake tensors, which have shapes and
    no values, forward and backward, by the code of the analyses where that does not look at values; every tensor that
    torch hands out is counted. So it holds for any network that runs without looking at values.

    Not counted: the libraries themselves, what kernels take inside, data loaders, what a loss or a model of the
    caller's holds between calls. Beside an H100's peaks predictions are within 3 %.

    Args:
        model: A module on any device, the meta device too; a configuration of transformers; a folder with
            `config.json`, whose weights, if there are any, say their dtypes; or `CheckpointWeights`.
        batch: Any batch of the kind that the model takes, of one sample or more; not needed for a language model.
        batch_size: Samples; by default those of `batch`, else what `recommend_settings` gives.
        num_tokens: Of a language model's samples; by default 1024, or as many as it can read.
        gpu_memory_gb: Memory of a GPU, 10^9 bytes. None: the model is taken to be on the CPU, beside all else, in what
            memory this machine has free.
        analyses: Which of "early_bird_sgd", "early_bird_adamw", "fisher", "robustness", "quality", "landscape", "imp".
        training: How early-bird trains: momentum, bits, checkpointing, `max_batch_size`.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        chunk_size: Of scores, see `ScoringOptions`.
        offload: Whether scores are summed on the CPU.
        include: Which weights count as prunable, as everywhere.
        exclude: Likewise.
        dtype: Of the weights, in place of their own.
        num_steps: Of a training, for its expected time; None gives that of one step alone.

    Returns:
        See `MemoryPlan` and `PlannedAnalysis`.

    Raises:
        OSError: When there is no such folder.
        TypeError: When the model is none of the four.
        ValueError: When an argument is out of range, or a configuration is garbled.
        ModuleNotFoundError: When a configuration needs transformers.

    Examples:
        >>> model = nn.Sequential(nn.Linear(784, 300, device="meta"), nn.ReLU(), nn.Linear(300, 10, device="meta"))
        >>> batch = (torch.empty(1, 784), torch.empty(1, dtype=torch.int64))
        >>> plan = plan_memory(model, batch=batch, batch_size=60, gpu_memory_gb=16, analyses=["fisher"])
        >>> plan["analyses"]["fisher"]["parts"]["sums of scores"], plan["analyses"]["fisher"]["fits"]
        (952800, True)
    """
    check_memory("gpu_memory_gb", gpu_memory_gb)
    _check_analyses(analyses)
    planned = find_model(model, dtype)
    sizes = ModelSizes.of_model(planned.model, include, exclude)
    settings = recommend_settings(planned.model, gpu_memory_gb)
    example, length = batch, None
    if batch is None:
        made = make_example(planned, None if num_tokens is None else check_count("num_tokens", num_tokens))
        example, length = made or (None, None)
    size = check_count("batch_size", batch_size or count_samples(batch) or settings["batch_size"])
    memory = gpu_memory_gb
    if memory is None:
        free = find_free_bytes()
        memory = None if free is None else free / GB + _lies_on_cpu(planned.model) * sizes.weight_bytes / GB
    steps = None if num_steps is None else check_count("num_steps", num_steps)
    budget = Budget(None if memory is None else memory * GB, gpu_memory_gb is not None)
    asked = Asked(example, size, training or TrainerSettings(), loss_fn, chunk_size, offload)
    device = "cpu" if gpu_memory_gb is None else "cuda" if torch.cuda.is_available() else None
    foreteller, notes = Foreteller(device, settings, steps), list[str]()
    found = _plan_all(planned.model, sizes, asked, budget, foreteller, analyses=analyses, notes=notes)
    return {
        "model": planned.name,
        "num_params": sizes.num_params,
        "num_prunable": sizes.num_prunable,
        "weight_bytes": sizes.weight_bytes,
        "largest_gradient_bytes": sizes.largest_bytes,
        "batch_size": size,
        "num_tokens": length,
        "memory_gb": memory,
        "on_gpu": gpu_memory_gb is not None,
        "analyses": found,
        "settings": _take_batches(settings, found),
        "times": foreteller.basis,
        "notes": notes,
    }


def _check_analyses(analyses: Sequence[Analysis]) -> None:
    if isinstance(analyses, str) or not analyses or set(analyses) - set(ANALYSES):
        raise ValueError(f"analyses must be some of {', '.join(ANALYSES)}, got {analyses!r}")


def _lies_on_cpu(model: nn.Module) -> bool:
    """Returns whether a model's weights already take some of this machine's memory, so that it is not free."""
    return next(model.parameters()).device.type == "cpu"


def _plan_all(
    model: nn.Module,
    sizes: ModelSizes,
    asked: Asked,
    budget: Budget,
    foreteller: Foreteller,
    *,
    analyses: Sequence[Analysis],
    notes: list[str],
) -> dict[str, PlannedAnalysis]:
    """Returns each analysis as it is foretold; where the model cannot be run, what is certain."""
    if asked.example is None:
        notes.append("activations are not counted, because it is not known what a batch looks like: give batch=")
        return {analysis: _plan_certain(analysis, sizes, budget) for analysis in analyses}
    others = max(1, asked.batch_size // 2) if asked.batch_size > 1 else 2
    pair = (asked, replace(asked, batch_size=others))
    try:
        stand_in = StandIn(model, on_gpu=budget.on_gpu)
        first, second = (Foretold(stand_in, sizes, each) for each in pair)
        found: dict[str, PlannedAnalysis] = {}
        for analysis in analyses:
            logger.info("planning %s", analysis)
            phases = first.list_phases(analysis)
            found[analysis] = _describe(sizes, budget, phases, foreteller.expect(analysis, phases))
            found[analysis]["largest_batch_size"] = budget.find_batch_size(
                _of_model(sizes), phases, second.list_phases(analysis), (asked.batch_size, others)
            )
    except Exception as error:  # noqa: BLE001 - a model that looks at values, or that cannot be copied, raises anything
        notes.append(
            f"activations are not counted, because {type(model).__name__} cannot be run without values: "
            f"{type(error).__name__}: {say_briefly(error)}"
        )
        return {analysis: _plan_certain(analysis, sizes, budget) for analysis in analyses}
    return found


def _plan_certain(analysis: Analysis, sizes: ModelSizes, budget: Budget) -> PlannedAnalysis:
    certain = find_certain(analysis, sizes)
    return _describe(sizes, budget, [Phase("without activations", certain.device, certain.host)], None)


def _describe(sizes: ModelSizes, budget: Budget, phases: Sequence[Phase], expected: Expected | None) -> PlannedAnalysis:
    """Returns a plan without a largest batch; nothing is expected where activations are not counted."""
    model, phase = _of_model(sizes), budget.find_largest(phases)
    parts = {name: num_bytes for name, num_bytes in (model | phase.device).items() if num_bytes}
    return {
        "moment": phase.name,
        "parts": parts,
        "host_parts": {name: num_bytes for name, num_bytes in phase.host.items() if num_bytes},
        "device_bytes": sum(parts.values()),
        "host_bytes": max(sum(each.host.values()) for each in phases) if budget.on_gpu else sum(phase.host.values()),
        "is_complete": expected is not None,
        "fits": budget.fits(model, phase),
        "largest_batch_size": None,
        "step": expected.step if expected else "",
        "step_seconds": expected.step_seconds if expected else None,
        "num_steps": expected.num_steps if expected else None,
        "expected_seconds": expected.seconds if expected else None,
    }


def _of_model(sizes: ModelSizes) -> Parts:
    return {"weights": sizes.weight_bytes, "buffers": sizes.buffer_bytes}


def _take_batches(settings: RecommendedSettings, found: Mapping[str, PlannedAnalysis]) -> RecommendedSettings:
    """Returns settings with no larger batches than fit; an optimizer that does not fit at any batch is not advised."""
    sizes = {name: planned["largest_batch_size"] for name, planned in found.items()}
    measured = [size for name, size in sizes.items() if size and not name.startswith(("early_bird", "imp"))]
    optimizer = settings["optimizer"]
    if sizes.get("early_bird_adamw") == 0:
        optimizer = "sgd"
    trained = sizes.get(f"early_bird_{optimizer}") or settings["early_bird_batch_size"]
    return {
        **settings,
        "optimizer": optimizer,
        "batch_size": min([settings["batch_size"], *measured]),
        "early_bird_batch_size": min(settings["early_bird_batch_size"], trained),
    }

"""Settings to begin with, by the size of a model and of the GPU, with the memory they are expected to take."""

import math
from dataclasses import dataclass
from typing import Final, TypedDict

from torch import nn

from lottery_tickets._core.memory.sizes import Analysis, ModelSizes, find_certain
from lottery_tickets._core.notebooks import show_own

__dir__ = show_own(__name__)

BYTES_BF16: Final = 2
BILLION: Final = 1e9
LARGEST_SHARE: Final = 0.1  # of a model that is only known by its size; the embedding of a 14 B model has 5 %
RESERVE: Final = 1.25  # activations, batches and the allocator's gaps, over what is counted
SMALL_CHUNK: Final = 25_000_000
SMALL_GPU_GB: Final = 16
LARGE_GPU_GB: Final = 80
EARLY_BIRD_SPARSITY: Final = {"classification": 0.7, "language modelling": 0.5, "fine-tuning": 0.3}


@dataclass(frozen=True)
class _Row:
    """The settings recommended for models below a size."""

    below: float
    batch_size: int
    early_bird_batch_size: int
    fisher_samples: int
    chunk_size: int | None
    grid_points: int


ROWS: Final = (
    _Row(1e9, 64, 64, 1000, None, 25),
    _Row(3e9, 32, 4, 500, 100_000_000, 19),
    _Row(math.nextafter(7e9, math.inf), 16, 4, 200, 50_000_000, 15),  # 7e9 itself belongs here
    _Row(math.inf, 8, 2, 100, SMALL_CHUNK, 11),
)


class PredictedMemory(TypedDict):
    """GB (10^9 bytes) on the device, without activations and batches, which `plan_memory` adds.

    Attributes:
        weights: Of the model alone.
        quality: Post-hoc quality and robustness: weights and one layer.
        landscape: Weights, and the largest of them moved.
        fisher: Weights, and float32 sums of every weight that can be pruned; the sums can be offloaded.
        early_bird_sgd: Weights, and the largest gradient: there is no optimizer state.
        early_bird_adamw: Weights, all gradients, and two states in the dtype of the weights.
    """

    weights: float
    quality: float
    landscape: float
    fisher: float
    early_bird_sgd: float
    early_bird_adamw: float


class RecommendedSettings(TypedDict):
    """What `recommend_settings` returns.

    Attributes:
        num_params: Parameters of the model.
        batch_size: Samples, for everything that measures.
        fisher_samples: `num_samples` of `compute_fisher_importance`.
        chunk_size: Of the same; None for no limit.
        grid_points: Of `compute_loss_landscape`, each way.
        optimizer: "adamw" where its states fit, else "sgd", for `compute_early_bird_tickets`.
        early_bird_batch_size: `max_batch_size` of the same.
        early_bird_sparsity: `target_sparsity` of the same, by task.
        predicted_memory_gb: By job.
        fits: Whether a job's memory, with a quarter on top for activations, is within the GPU's; None without one.
    """

    num_params: int
    batch_size: int
    fisher_samples: int
    chunk_size: int | None
    grid_points: int
    optimizer: str
    early_bird_batch_size: int
    early_bird_sparsity: dict[str, float]
    predicted_memory_gb: PredictedMemory
    fits: dict[str, bool] | None


def recommend_settings(
    model_or_num_params: nn.Module | float, gpu_memory_gb: float | None = None
) -> RecommendedSettings:
    """Returns settings to begin with, and the memory they are expected to take.

    They bound memory and time; none of them changes what a quantity means. Fewer samples and grid points make figures
    noisier and coarser.

    Args:
        model_or_num_params: A model, or the number of its parameters, such as 7e9. A number alone is taken for bfloat16
            weights, a tenth of which are in the largest tensor.
        gpu_memory_gb: Memory of the device, 10^9 bytes. None gives no `fits`, and assumes 80 to choose the optimizer.

    Returns:
        See `RecommendedSettings`.

    Raises:
        TypeError: When the first argument is neither a model nor a number.
        ValueError: When there are no parameters, or the memory is not positive.

    Examples:
        >>> settings = recommend_settings(14.77e9, gpu_memory_gb=80)
        >>> settings["batch_size"], settings["grid_points"], settings["optimizer"], settings["fits"]["early_bird_sgd"]
        (8, 11, 'sgd', True)
    """
    sizes = measure_sizes(model_or_num_params)
    check_memory("gpu_memory_gb", gpu_memory_gb)
    row = next(row for row in ROWS if sizes.num_params < row.below)
    memory: PredictedMemory = {
        "weights": sizes.weight_bytes / BILLION,
        "quality": _predict("quality", sizes),
        "landscape": _predict("landscape", sizes),
        "fisher": _predict("fisher", sizes),
        "early_bird_sgd": _predict("early_bird_sgd", sizes),
        "early_bird_adamw": _predict("early_bird_adamw", sizes),
    }
    limit = gpu_memory_gb or LARGE_GPU_GB
    return {
        "num_params": sizes.num_params,
        "batch_size": row.batch_size,
        "fisher_samples": row.fisher_samples,
        "chunk_size": _choose_chunk(row, gpu_memory_gb),
        "grid_points": row.grid_points,
        "optimizer": "adamw" if RESERVE * memory["early_bird_adamw"] <= limit else "sgd",
        "early_bird_batch_size": row.early_bird_batch_size,
        "early_bird_sparsity": dict(EARLY_BIRD_SPARSITY),
        "predicted_memory_gb": memory,
        "fits": None
        if gpu_memory_gb is None
        else {job: RESERVE * memory[job] <= gpu_memory_gb for job in PredictedMemory.__annotations__},  # type: ignore[literal-required] # its own keys
    }


def check_memory(argument: str, given: object) -> None:
    """Raises a ValueError when memory is no positive number of GB.

    Args:
        argument: What the caller calls it.
        given: What the caller gave; None is allowed.
    """
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ValueError(f"{argument} must be a positive number of 10^9 bytes, or None, got {given!r}")


def measure_sizes(given: object) -> ModelSizes:
    """Returns the sizes of a model, or of a number of parameters."""
    if isinstance(given, nn.Module):
        return ModelSizes.of_model(given)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"settings are for a model or a number of parameters, but got {type(given).__name__}")
    if not math.isfinite(given):
        raise ValueError(f"the number of parameters must be finite, got {given}")
    if int(given) < 1:
        raise ValueError(f"a model must have at least one parameter, got {int(given)}")
    return ModelSizes.of_number(int(given), BYTES_BF16, LARGEST_SHARE)


def _predict(analysis: Analysis, sizes: ModelSizes) -> float:
    """Returns GB where the model is."""
    return (sizes.weight_bytes + sum(find_certain(analysis, sizes).device.values())) / BILLION


def _choose_chunk(row: _Row, gpu_memory_gb: float | None) -> int | None:
    """Returns smaller chunks for a small GPU, and larger ones for a large one."""
    if gpu_memory_gb is None:
        return row.chunk_size
    if gpu_memory_gb <= SMALL_GPU_GB:
        return SMALL_CHUNK
    if gpu_memory_gb >= LARGE_GPU_GB:
        return None if row.below < math.inf else ROWS[1].chunk_size
    return row.chunk_size

"""What an analysis is given: the model, its data, and settings that suit its size."""

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets import (
    Importance,
    Mask,
    compute_fisher_importance,
    compute_magnitude_importance,
    compute_taylor_importance,
    create_importance_mask,
    recommend_settings,
)
from lottery_tickets import compute_pruning_robustness as measure_once
from lottery_tickets.storage import hash_state
from lottery_tickets.utils import check_share
from unified_model_analysis.config import SHOWN, UnifiedConfig

KEPT_SCORES: Final = 1_000_000_000  # bytes of scores that are kept for the next analysis
NUM_TIMED: Final = 4  # passes; the fastest counts
BILLION: Final = 1e9
FLOAT_BYTES: Final = 4
CLASSIFICATION: Final = "classification"
LANGUAGE: Final = "language modelling"
STRATEGIES: Final = ("magnitude", "saliency", "taylor")


@final
@dataclass
class Subject:
    """A model with its data.

    Attributes:
        model: In evaluation or training mode; each analysis leaves it as it was.
        dataloader: All of the data.
        config: As the user gave it.
        batches: The first batches, which losses are measured on.
        settings: What the choices left open by the config came to: `num_samples`, `grid_points`, `chunk_size`,
            `target_sparsity`, `learning_rate`, `optimizer`.
        seconds_a_pass: How long one forward pass of one batch takes here.
    """

    model: nn.Module
    dataloader: Iterable[Any]
    config: UnifiedConfig
    batches: list[Any]
    settings: dict[str, Any]
    seconds_a_pass: float
    _scores: dict[str, Importance] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Samples of the first batch."""
        return max(1, _count_samples(self.batches[0]))

    @property
    def keeps_scores(self) -> bool:
        """Whether scores are kept for the next analysis: those of all strategies together are small."""
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return len(STRATEGIES) * FLOAT_BYTES * num_parameters <= KEPT_SCORES

    @property
    def num_scoring_batches(self) -> float:
        """Batches that `settings["num_samples"]` samples fill, at most those that there are."""
        wanted: float = self.settings["num_samples"] / self.batch_size
        length = getattr(self.dataloader, "__len__", None)
        return min(wanted, float(length())) if length is not None else wanted

    def score(self, strategy: str) -> Importance:
        """Returns the scores of a strategy; those of small models are kept for the next analysis.

        Args:
            strategy: "magnitude", "saliency" (0.5 F w^2) or "taylor".

        Raises:
            KeyError: When there is no such strategy.
        """
        if strategy in self._scores:
            return self._scores[strategy]
        options: dict[str, Any] = {
            "loss_fn": self.config.loss_fn,
            "seed": self.config.seed,
            "progress": self.config.progress,
        }
        num_samples, chunk_size = self.settings["num_samples"], self.settings["chunk_size"]
        makers = {
            "magnitude": lambda: compute_magnitude_importance(self.model),
            "saliency": lambda: compute_fisher_importance(
                self.model, self.dataloader, num_samples, chunk_size, saliency=True, **options
            ),
            "taylor": lambda: compute_taylor_importance(self.model, self.dataloader, num_samples, **options),
        }
        scores = makers[strategy]()
        if self.keeps_scores:
            self._scores[strategy] = scores
        return scores

    def draw_mask(self, strategy: str) -> Mask:
        """Returns the mask of a strategy at the target sparsity."""
        return create_importance_mask(self.score(strategy), self.settings["target_sparsity"])

    def describe(self) -> dict[str, Any]:
        """Returns what results must have in common with those that lie in the folder already, JSON-able."""
        chosen = {item.name: getattr(self.config, item.name) for item in fields(self.config) if item.name not in SHOWN}
        for name in ("loss_fn", "initialise_fn"):
            chosen[name] = getattr(chosen[name], "__qualname__", None)
        chosen["sparsity_levels"] = list(self.config.sparsity_levels)
        data = dict(_list_tensors(self.batches))
        return {
            "config": chosen,
            "settings": self.settings,
            "model_sha256": hash_state(self.model.state_dict()),
            "data_sha256": hash_state(data),
        }

    def describe_model(self) -> dict[str, Any]:
        """Returns `name`, `class`, `num_parameters`, `num_prunable` and `num_layers` of the model."""
        masks = self.model_shape
        return {
            "name": self.config.name or type(self.model).__name__,
            "class": type(self.model).__qualname__,
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "num_prunable": sum(masks.values()),
            "num_layers": len(masks),
        }

    @property
    def model_shape(self) -> dict[str, int]:
        """By name the sizes of the weights that are pruned."""
        scores = compute_magnitude_importance(self.model)
        return {name: tensor.numel() for name, tensor in scores.items()}


def make_subject(model: nn.Module, dataloader: Iterable[Any], config: UnifiedConfig) -> Subject:
    """Returns the subject, with settings chosen by the size of the model and one forward pass timed.

    Args:
        model: To be analysed.
        dataloader: Its data; can be gone through many times.
        config: Of the user.

    Raises:
        TypeError: When the data can be gone through once only, or the model refuses a batch.
        ValueError: When there is no data.
    """
    if iter(dataloader) is dataloader:
        raise TypeError("dataloader must be one that can be gone through many times, got an iterator; pass a list")
    for share in (config.target_sparsity, *config.sparsity_levels):
        if share is not None:
            check_share("target_sparsity, and each of sparsity_levels,", share)
    batches = list(itertools.islice(dataloader, config.num_batches))
    if not batches:
        raise ValueError("dataloader must hold at least one batch, got none")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    memory = config.gpu_memory_gb
    if memory is None and device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / BILLION
    advice = recommend_settings(model, memory)
    timed = [_time_pass(model, batches[0], config.loss_fn) for _ in range(NUM_TIMED)]
    metric, seconds = timed[0][0], min(seconds for _, seconds in timed)  # the first also warms up
    task = LANGUAGE if metric == "perplexity" else CLASSIFICATION
    sgd = advice["optimizer"] == "sgd"
    settings = {
        "task": task,
        "num_samples": config.num_samples or advice["fisher_samples"],
        "grid_points": config.grid_points or advice["grid_points"],
        "chunk_size": config.chunk_size or advice["chunk_size"],
        "target_sparsity": advice["early_bird_sparsity"][task]
        if config.target_sparsity is None
        else config.target_sparsity,
        "optimizer": advice["optimizer"],
        "max_batch_size": advice["early_bird_batch_size"],
        "learning_rate": config.learning_rate or (1e-2 if sgd else 1e-3),
    }
    return Subject(model, dataloader, config, batches, settings, seconds)


def _time_pass(model: nn.Module, batch: Any, loss_fn: Any) -> tuple[str, float]:  # noqa: ANN401 - any batch
    """Returns the metric of a model, and how many seconds a forward pass of a batch takes."""
    begun = time.perf_counter()
    found = measure_once(model, batch, [0.0], curves=["magnitude"], loss_fn=loss_fn)
    return found["metric"], (time.perf_counter() - begun) / 2  # it measures twice


def _count_samples(batch: Any) -> int:  # noqa: ANN401 - any batch
    sizes = [len(tensor) for _, tensor in _list_tensors(batch) if tensor.ndim]
    return sizes[0] if sizes else 1


def _list_tensors(value: Any, where: str = "data") -> Iterable[tuple[str, Tensor]]:  # noqa: ANN401 - any batch
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _list_tensors(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _list_tensors(item, f"{where}.{number}")

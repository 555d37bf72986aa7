"""How large a model's parts are, and what an analysis holds beside the model whatever the batch."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Self, final

import torch
from torch import nn

from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.prunable_weights import Choices, choose_stored
from lottery_tickets._core.sharding.dtensors import see_local

Parts = dict[str, int]  # bytes by name
Analysis = Literal["early_bird_sgd", "early_bird_adamw", "fisher", "robustness", "quality", "landscape", "imp"]
ANALYSES: Final[tuple[Analysis, ...]] = (
    "early_bird_sgd", "early_bird_adamw", "fisher", "robustness", "quality", "landscape", "imp",
)  # fmt: skip
BYTES_FLOAT32: Final = 4
BYTES_OF_RANK: Final = 2  # of a weight in a snapshot
BITS: Final = 8  # a byte
FULL_BITS: Final = 32  # of each number that AdamW keeps
STATES_OF_ADAM: Final = 2  # a weight, in its dtype


@final
@dataclass(frozen=True)
class ModelSizes:
    """What is counted of a model; shared parameters once, and of sharded ones what lies here.

    Attributes:
        num_params: Parameters.
        weight_bytes: Of all parameters.
        buffer_bytes: Of all buffers.
        gradient_bytes: Of the parameters that are trained.
        largest_bytes: Of the largest parameter.
        prunable: For each weight that can be pruned, its number of elements.
        prunable_bytes: For each of these, its bytes.
        largest_prunable_bytes: Of the largest of these.
    """

    num_params: int
    weight_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    largest_bytes: int
    prunable: Mapping[str, int]
    prunable_bytes: Mapping[str, int]
    largest_prunable_bytes: int

    @property
    def num_prunable(self) -> int:
        """How many weights can be pruned."""
        return sum(self.prunable.values())

    @classmethod
    def of_model(cls, model: nn.Module, include: Choices | None = None, exclude: Choices | None = None) -> Self:
        """Returns the sizes of a model on any device, the meta device too.

        Args:
            model: The model.
            include: As in `find_prunable_weights`.
            exclude: Likewise.

        Raises:
            ValueError: When a choice matches nothing, or the model has no parameter.
        """
        inner = unwrap(model)
        named = {clean_name(name): parameter for name, parameter in inner.named_parameters()}
        if not sum(parameter.numel() for parameter in named.values()):
            raise ValueError("a model must have at least one parameter, got 0")
        shapes = {name: torch.empty(p.shape, dtype=p.dtype, device="meta") for name, p in named.items()}
        chosen: list[str] = []
        with suppress(*(() if include or exclude else (ValueError,))):  # a model may have nothing to prune
            chosen = list(choose_stored(shapes, inner, include, exclude))
        here = {name: see_local(parameter) for name, parameter in named.items()}
        return cls(
            num_params=sum(tensor.numel() for tensor in here.values()),
            weight_bytes=sum(tensor.nbytes for tensor in here.values()),
            buffer_bytes=sum(buffer.nbytes for buffer in inner.buffers()),
            gradient_bytes=sum(here[name].nbytes for name, p in named.items() if p.requires_grad),
            largest_bytes=max(tensor.nbytes for tensor in here.values()),
            prunable={name: here[name].numel() for name in chosen},
            prunable_bytes={name: here[name].nbytes for name in chosen},
            largest_prunable_bytes=max((here[name].nbytes for name in chosen), default=0),
        )

    @classmethod
    def of_number(cls, num_params: int, bytes_each: int, largest_share: float) -> Self:
        """Returns the sizes of a model of which little is known; all its weights are taken for prunable.

        Args:
            num_params: Parameters.
            bytes_each: Of one.
            largest_share: Of the parameters that the largest tensor has.
        """
        total, largest = bytes_each * num_params, round(num_params * largest_share)
        prunable = {"the largest": largest, "all others": num_params - largest}
        in_bytes = {name: bytes_each * count for name, count in prunable.items()}
        # Of all others it is not known how large each is: none is larger than the largest.
        return cls(num_params, total, 0, total, bytes_each * largest, prunable, in_bytes, bytes_each * largest)


@final
@dataclass(frozen=True)
class Certain:
    """What an analysis holds beside the model, whatever the batch.

    Attributes:
        device: Bytes by part where the model is.
        host: Bytes by part on the CPU.
    """

    device: Parts
    host: Parts


def find_certain(
    analysis: Analysis, sizes: ModelSizes, *, momentum: bool = False, adam_bytes: int | None = None
) -> Certain:
    """Returns what an analysis holds for certain at one moment, beside weights and buffers.

    Args:
        analysis: Which.
        sizes: Of the model.
        momentum: Whether SGD has a buffer a weight.
        adam_bytes: Of one of the two numbers that AdamW keeps a weight; None for those of the weight.
    """
    return CERTAIN[analysis](sizes, momentum, adam_bytes)


def _of_early_bird(sizes: ModelSizes, device: Parts) -> Certain:
    masks = 2 * -(-sizes.num_prunable // BITS)  # of the start and of the last check
    host = {
        "starting weights": sizes.weight_bytes + sizes.buffer_bytes,
        "ranks": BYTES_OF_RANK * sizes.num_prunable,
        "masks": masks,
    }
    return Certain(device, host)


def _of_sgd(sizes: ModelSizes, momentum: bool, _: int | None) -> Certain:  # noqa: FBT001 - as all of them
    optimizer = {"optimizer": sizes.gradient_bytes} if momentum else {}
    return _of_early_bird(sizes, {"gradients": min(sizes.largest_bytes, sizes.gradient_bytes), **optimizer})


def _of_adamw(sizes: ModelSizes, _: bool, adam_bytes: int | None) -> Certain:  # noqa: FBT001 - as all of them
    each = sizes.gradient_bytes if adam_bytes is None else adam_bytes * _count_trained(sizes)
    return _of_early_bird(sizes, {"gradients": sizes.gradient_bytes, "optimizer": STATES_OF_ADAM * each})


def _count_trained(sizes: ModelSizes) -> int:
    return round(sizes.num_params * sizes.gradient_bytes / sizes.weight_bytes)


def _of_fisher(sizes: ModelSizes, *_: object) -> Certain:
    return Certain({"sums of scores": BYTES_FLOAT32 * sizes.num_prunable}, {})


def _of_copies(sizes: ModelSizes, *_: object) -> Certain:
    return Certain({"one layer": sizes.largest_prunable_bytes}, {"masks": -(-sizes.num_prunable // BITS)})


def _of_landscape(sizes: ModelSizes, *_: object) -> Certain:
    return Certain({"one layer": sizes.largest_bytes}, {})


def _of_imp(sizes: ModelSizes, *_: object) -> Certain:
    device = {"gradients": sizes.gradient_bytes, "optimizer": STATES_OF_ADAM * sizes.gradient_bytes}
    masks = -(-sizes.num_prunable // BITS)
    return Certain(device, {"starting weights": sizes.weight_bytes + sizes.buffer_bytes, "masks": masks})


CERTAIN: Final[Mapping[Analysis, Callable[[ModelSizes, bool, int | None], Certain]]] = {
    "early_bird_sgd": _of_sgd,
    "early_bird_adamw": _of_adamw,
    "fisher": _of_fisher,
    "robustness": _of_copies,
    "quality": _of_copies,
    "landscape": _of_landscape,
    "imp": _of_imp,
}

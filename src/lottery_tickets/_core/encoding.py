"""From results to strict JSON: tensors become summaries, and what has a file of its own becomes the file's name."""

import math
from collections.abc import Callable, Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.sharding.dtensors import gather

QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
NUM_BINS: Final = 50
HEAT_MAP_SIDE: Final = 16
MASK_KEY: Final = "mask_file"
STATE_KEY: Final = "state_file"
OWN_KEYS: Final = {MASK_KEY: "a mask's file", STATE_KEY: "a state's file"}


@final
class Place(NamedTuple):
    """Where in the results a value stands, and the files beside them.

    Attributes:
        where: Keys and numbers on the way to it.
        stem: What the names of files beside the results begin with.
        files: By name, what writes each.
    """

    where: str
    stem: str
    files: dict[str, Callable[[Path], None]]

    def at(self, key: object) -> "Place":
        """Returns the place of a value inside."""
        return self._replace(where=f"{self.where}/{key}")


@singledispatch
def encode(value: object, place: Place) -> Any:  # noqa: ANN401 - JSON is anything
    """Returns a value as JSON; classes register how theirs are stored.

    Args:
        value: Of results.
        place: Where it stands.

    Raises:
        ValueError: When a number is NaN or infinite, or a key is "mask_file" or "state_file".
        TypeError: When a value is of a type that cannot be written.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"results must hold JSON values, tensors and masks, but {place.where} is a {type(value).__name__}")


@encode.register
def _(value: float, place: Place) -> float:
    if not math.isfinite(value):
        raise ValueError(
            f"results must hold finite numbers, but {place.where or 'the value'} is {value}; leave it out or say None"
        )
    return value


@encode.register
def _(value: Mapping, place: Place) -> dict[str, Any]:  # type: ignore[type-arg] # singledispatch takes classes
    for key in OWN_KEYS.keys() & value.keys():  # it would come back as what is in the file, or not at all
        where = place.where or "the top level"
        raise ValueError(f"results must not use the key {key!r}, which names {OWN_KEYS[key]}, but {where} does")
    return {str(key): encode(item, place.at(key)) for key, item in value.items()}


@encode.register(list)
@encode.register(tuple)
def _(value: list[Any] | tuple[Any, ...], place: Place) -> list[Any]:
    return [encode(item, place.at(number)) for number, item in enumerate(value)]


@encode.register
def _(value: Tensor, place: Place) -> Any:  # noqa: ANN401 - JSON is anything
    return encode(summarise_tensor(gather(value)), place)  # of a DTensor in all processes


def summarise_tensor(tensor: Tensor) -> dict[str, Any]:
    """Returns a tensor's shape, dtype and, when it has elements, mean, deviation, quantiles, histogram and heat map.

    Raises:
        ValueError: When it holds NaN or infinity.
    """
    summary: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if tensor.numel() == 0:
        return summary
    values = tensor.detach().cpu().double().flatten().sort().values
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"a tensor in results must be finite, but one of shape {tuple(tensor.shape)} holds NaN or infinity"
        )
    positions = [round(q * (len(values) - 1)) for q in QUANTILES]
    counts, edges = torch.histogram(values, bins=NUM_BINS)
    if tensor.ndim > 1:
        summary["heat_map"] = _draw_heat_map(tensor)
    return summary | {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "quantiles": {str(q): float(values[i]) for q, i in zip(QUANTILES, positions, strict=True)},
        "histogram": {"edges": edges.tolist(), "counts": [int(count) for count in counts]},
    }


def _draw_heat_map(tensor: Tensor) -> list[list[float]]:
    """Returns the means of blocks of a matrix (first dimension, all others), at most 16 x 16 of about equal size."""
    matrix = tensor.detach().cpu().float().flatten(1)
    side = (min(HEAT_MAP_SIDE, matrix.shape[0]), min(HEAT_MAP_SIDE, matrix.shape[1]))
    means: list[list[float]] = nn.functional.adaptive_avg_pool2d(matrix[None], side)[0].tolist()
    return means

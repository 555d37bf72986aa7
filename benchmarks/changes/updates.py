"""Updates of simulated trainings: independent of each other, with weights that go together in ways of their own."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Shapes = Mapping[str, tuple[int, int]]
Draw = Callable[[np.random.Generator, Shapes], dict[str, Floats]]

# Two layers as in a transformer, whose channels are the dimension of 256.
SHAPES: Final[Shapes] = {"0.up.weight": (128, 256), "0.down.weight": (256, 128), "1.square.weight": (256, 256)}
CHANNELS: Final = 256
HEAD: Final = 32  # rows
WEIGHT_STD: Final = 0.02
ULP: Final = {torch.bfloat16: 2.0**-13, torch.float32: 2.0**-29}  # of a weight of one standard deviation
SPREAD: Final = 1.5  # standard deviation of the logarithm of what rows, columns, heads, layers are scaled by


def draw_weights(generator: np.random.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns weights whose rows have scales of their own."""
    weights = {}
    for name, shape in SHAPES.items():
        values = WEIGHT_STD * _scale(generator, 0.5, shape[0], 1) * generator.standard_normal(shape)
        weights[name] = torch.from_numpy(values).to(dtype)
    return weights


def _scale(generator: np.random.Generator, spread: float, *shape: int) -> Floats:
    scales: Floats = np.exp(spread * generator.standard_normal(shape))
    return scales


def _each(draw: Callable[[np.random.Generator, tuple[int, int]], Floats]) -> Draw:
    return lambda generator, shapes: {name: draw(generator, shape) for name, shape in shapes.items()}


def _draw_rank(generator: np.random.Generator, shape: tuple[int, int], rank: int, freedom: float = np.inf) -> Floats:
    left, right = ((size, rank) for size in shape)
    if np.isinf(freedom):
        return generator.standard_normal(left) @ generator.standard_normal(right).T
    return generator.standard_t(freedom, left) @ generator.standard_t(freedom, right).T


def _draw_channels(generator: np.random.Generator, shapes: Shapes) -> dict[str, Floats]:
    """One scale a channel, the same in all layers: of rows that write it and of columns that read it."""
    scales, drawn = _scale(generator, SPREAD, CHANNELS), {}
    for name, (rows, columns) in shapes.items():
        drawn[name] = generator.standard_normal((rows, columns)) * (
            scales[:, None] if rows == CHANNELS else scales[None, :]
        )
    return drawn


UPDATES: Final[Mapping[str, Draw]] = {
    "normal": _each(lambda g, shape: g.standard_normal(shape)),
    "heavy tails": _each(lambda g, shape: g.standard_t(1.5, shape)),
    "layers": _each(lambda g, shape: g.standard_normal(shape) * _scale(g, SPREAD, 1, 1)),
    "rows": _each(lambda g, shape: g.standard_normal(shape) * _scale(g, SPREAD, shape[0], 1)),
    "columns": _each(lambda g, shape: g.standard_normal(shape) * _scale(g, SPREAD, 1, shape[1])),
    "rows and columns": _each(
        lambda g, shape: g.standard_normal(shape) * _scale(g, 1, shape[0], 1) * _scale(g, 1, 1, shape[1])
    ),
    "heads": _each(
        lambda g, shape: g.standard_normal(shape) * _scale(g, SPREAD, shape[0] // HEAD, 1).repeat(HEAD, axis=0)
    ),
    "channels": _draw_channels,
    "rank 1": _each(lambda g, shape: _draw_rank(g, shape, 1)),
    "rank 4": _each(lambda g, shape: _draw_rank(g, shape, 4)),
    "rank 1, heavy tails": _each(lambda g, shape: _draw_rank(g, shape, 1, freedom=1.5)),
}


def draw_update(name: str, generator: np.random.Generator, size: float) -> dict[str, Floats]:
    """Returns an update whose median magnitude is that of normal numbers of this standard deviation."""
    drawn = UPDATES[name](generator, SHAPES)
    median = float(np.median(np.abs(np.concatenate([delta.ravel() for delta in drawn.values()]))))
    return {layer: delta * (size * 0.6745 / median) for layer, delta in drawn.items()}


def add(weights: Mapping[str, Tensor], update: Mapping[str, Floats]) -> dict[str, Tensor]:
    """Returns weights after an update, rounded to how they are stored."""
    return {
        name: (weight.double() + torch.from_numpy(update[name])).to(weight.dtype) for name, weight in weights.items()
    }

"""The loss landscape around a model: on a plane of two random directions, or on the line to another state."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, final

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lottery_tickets._core.checks import check_count
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.folders import to_json_values
from lottery_tickets._core.kept_file import KeptFile
from lottery_tickets._core.measuring.interpolation import Line
from lottery_tickets._core.measuring.performance import Measurement, Performance, PerformanceFigures, measuring
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.prunable_weights import Choices, find_filtered_weights
from lottery_tickets._core.records import Record
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.weights import Weight
from lottery_tickets.landscape.arguments import (
    AXES,
    check_ends,
    check_grid,
    check_model_and_data,
    check_span,
    check_weights,
)
from lottery_tickets.landscape.directions import MovedWeights
from lottery_tickets.landscape.saved_points import Point, read_points
from lottery_tickets.landscape.sharpness import LossRise, find_rises
from lottery_tickets.masks.fitting import find_masked_parameters
from lottery_tickets.masks.mask import Mask, as_mask

FORMAT: Final = "lottery-tickets landscape 1"
SECONDS_BETWEEN_WRITES: Final = 1.0

Mode = Literal["plane", "line"]


class MovedParameter(TypedDict):
    """A parameter that moves: its shape, its number of weights and of filters, each of which has a norm of its own."""

    name: str
    shape: list[int]
    num_weights: int
    num_filters: int


class LandscapeResults(TypedDict):
    """What `compute_loss_landscape` returns, see there."""

    mode: Mode
    x: list[float]
    y: list[float]
    span: list[float]
    losses: list[list[float | None]]
    accuracies: list[list[float | None]]
    centre: PerformanceFigures
    num_nonfinite: int
    num_measured: int
    sharpness: list[LossRise]
    normalisation: str | None
    seeds: dict[str, int]
    parameters: list[MovedParameter]
    settings: dict[str, Any]


def compute_loss_landscape(
    model: nn.Module,
    dataloader: Iterable[Any],
    grid_points: int | tuple[int, int] = 25,
    *,
    span: float | tuple[float, float] | None = None,
    seed: int = 42,
    mask: Mapping[str, Tensor] | None = None,
    end_state: Mapping[str, Tensor] | None = None,
    include: Choices | None = None,
    exclude: Choices | None = None,
    loss_fn: LossFunction | None = None,
    path: str | Path | None = None,
    progress: bool = False,
) -> LandscapeResults:
    """Returns the losses around a model, on a plane of two random directions or on the line to another state.

    On a plane the loss is that of weights + x * first + y * second. The directions are random and filter-normalised:
    each filter (the weights of one output of a linear weight or a convolution, one row of an embedding) is as long as
    the same filter of the weights, because scaling a layer up and the next one down must not change the picture. Biases
    and norms do not move. The plane shows two directions of very many: another seed shows another plane.

    The model's weights are never written, so nothing can be left undone: functions that read a weight are handed the
    moved one, made for them and let go after. On a plane the memory beyond a forward pass is that of the largest
    weight. Models of less than 64 MiB keep the directions. On a line it is that of one state.

    Args:
        model: Any model, on any device. It is measured in evaluation mode; on a plane with the batch-norm statistics
            it has, on a line with statistics computed anew from `dataloader` at each point.
        dataloader: Batches, see the three ways a model can be driven in `compute_loss`; iterated anew for each point.
        grid_points: Points in each direction, or (points in x, points in y); on a line its points. 1 is the centre. An
            odd number has the centre among them.
        span: On a plane how far to go to each side, in units in which 1 is as long as the weights: a number, 1.0 when
            None, or one for x and one for y. On a line its two ends, (0, 1) when None: 0 is the model, 1 is
            `end_state`.
        seed: Of the two directions, and of the global generators while data is read.
        mask: For the landscape of a pruned network: pruned weights are zero and do not move, and filters have the norm
            of what is kept.
        end_state: A state dict of the model's kind. Then the landscape is the line from the model to it.
        include: Restricts the weights that move on a plane: names, glob patterns or module types.
        exclude: Removes from them.
        loss_fn: `loss_fn(model, batch)` -> scalar mean loss, for batches of other kinds.
        path: A JSON file that holds what is measured so far; the same call goes on from it.
        progress: Whether to show a bar.

    Returns:
        `mode` ("plane" or "line"); `x`, `y`, the coordinates (on a line x is the share of `end_state`, and y is [0.0]);
        `span`; `losses` and `accuracies`, nested lists of len(y) rows and len(x) columns, mean loss and share of right
        predictions, None where they are not finite or there is nothing to count; `centre`, see `PerformanceFigures`:
        the model itself; `num_nonfinite`, points whose loss is not finite; `num_measured`; `sharpness`, the mean and
        the largest rise of the loss on circles around the centre, see `LossRise` (empty on a line; it depends on the
        span, so compare equal spans only); `normalisation` ("filter", None on a line); `seeds` of the directions;
        `parameters` that move, see `MovedParameter`; `settings`, what a file must have in common with this call.

    Raises:
        TypeError: When `dataloader` is an iterator, the model refuses a batch, or a weight is no plain tensor.
        ValueError: When an argument is out of range, the data is empty, weights are not finite, mask or `end_state` do
            not fit the model, or `path` holds another landscape or was altered.
        OSError: When `path` cannot be read or written.

    References:
        Li et al., arXiv:1712.09913 (filter normalisation); Goodfellow et al., arXiv:1412.6544 (lines).

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> data = [(torch.randn(16, 4), torch.randint(2, (16,)))]
        >>> found = compute_loss_landscape(model, data, grid_points=(5, 3), span=0.5)
        >>> found["x"], len(found["losses"]), len(found["losses"][0])
        ([-0.5, -0.25, 0.0, 0.25, 0.5], 3, 5)
        >>> found["losses"][1][2] == found["centre"]["loss"]
        True
        >>> [moved["num_filters"] for moved in found["parameters"]]
        [8, 2]
    """
    subject = _Subject(model, dataloader, Measurement(loss_fn), seed)
    if end_state is None:
        surface = _make_plane(subject, grid_points, span, mask=mask, include=include, exclude=exclude)
    else:
        for_planes = {"mask": mask, "include": include, "exclude": exclude}
        unused = [name for name, value in for_planes.items() if value is not None]
        surface = _make_line(subject, grid_points, span, end_state, unused=unused)
    return _measure(surface, None if path is None else Path(path), progress=progress)


@final
@dataclass(frozen=True)
class _Subject:
    """What is measured, and on what.

    Raises:
        TypeError: When the model is not a module or hides what it reads, or the loader or the seed is of another type.
    """

    model: nn.Module
    dataloader: Iterable[Any]
    measurement: Measurement
    seed: int

    def __post_init__(self) -> None:
        check_model_and_data(self.model, self.dataloader)
        refuse_sharded(self.model, "landscapes")
        seed: object = self.seed
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f"seed must be an integer, got {seed!r}")


@final
@dataclass(frozen=True)
class _Surface:
    """What is measured: where, how, and the facts of it that do not depend on the measurement."""

    measure_at: Callable[[float, float], Performance]
    x: list[float]
    y: list[float]
    facts: dict[str, Any]


def _make_plane(
    subject: _Subject,
    grid_points: object,
    span: object,
    *,
    mask: Mapping[str, Tensor] | None,
    include: Choices | None,
    exclude: Choices | None,
) -> _Surface:
    model, dataloader = subject.model, subject.dataloader
    num_x, num_y = check_grid(grid_points)
    span_x, span_y = check_span(span)
    weights = find_filtered_weights(model, include=include, exclude=exclude)
    check_weights(model, weights)
    checked = None if mask is None else as_mask(mask)
    if checked is not None:
        find_masked_parameters(model, checked)  # which checks that it fits
    seeds = {axis: derive_seed(int(subject.seed), "landscape", axis) for axis in AXES}
    moved = MovedWeights(model, weights, list(seeds.values()), None if checked is None else checked.bits)

    def measure_at(x: float, y: float) -> Performance:
        with measuring(model, dataloader, subject.seed), moved.at(x, y):
            return subject.measurement(unwrap(model), dataloader)

    facts: dict[str, Any] = {
        "mode": "plane",
        "span": [span_x, span_y],
        "normalisation": "filter",
        "seeds": seeds,
        "parameters": [_describe(weight) for weight in weights.values()],
        "settings": _describe_settings(model, subject.seed, mask=checked),
    }
    return _Surface(measure_at, _space(span_x, num_x), _space(span_y, num_y), facts)


def _make_line(
    subject: _Subject, grid_points: object, span: object, end_state: object, *, unused: Sequence[str]
) -> _Surface:
    if unused:
        raise ValueError(
            f"{', '.join(unused)} must be left out on the line to end_state, where every weight moves; to compare "
            "pruned networks, prune both ends with apply_mask"
        )
    num_points = check_count("grid_points on a line", grid_points)
    start, stop = check_ends(span)
    state = unwrap(subject.model).state_dict()
    if not isinstance(end_state, Mapping):
        raise TypeError(f"end_state must be a state dict, got {type(end_state).__name__}; pass model.state_dict()")
    try:
        line = Line(subject.model, state, end_state)
    except ValueError as error:
        raise ValueError(f"model (first) and end_state (second) must fit, but {error}") from error

    def measure_at(x: float, _: float) -> Performance:
        return line.measure([x], subject.dataloader, subject.measurement, seed=subject.seed)[0]

    settings = _describe_settings(subject.model, subject.seed, end_state=end_state)
    facts: dict[str, Any] = {
        "mode": "line",
        "span": [start, stop],
        "normalisation": None,
        "seeds": {},
        "parameters": [],
    }
    positions = [float(x) for x in np.linspace(start, stop, num_points)]
    return _Surface(measure_at, positions, [0.0], {**facts, "settings": settings})


def _measure(surface: _Surface, path: Path | None, *, progress: bool) -> LandscapeResults:
    """Returns the figures of all points, those that are in the file taken from there."""
    facts = to_json_values({**surface.facts, "x": surface.x, "y": surface.y})
    if path is None:
        return _measure_rest(surface, facts, surface.measure_at(0.0, 0.0).figures, [], None, progress=progress)
    file = KeptFile(path, Record("landscape", facts["settings"]))
    with file.opened() as stored:
        centre = surface.measure_at(0.0, 0.0).figures
        found = [] if stored is None else read_points(stored, path, facts, centre)
        return _measure_rest(surface, facts, centre, found, file, progress=progress)


def _measure_rest(
    surface: _Surface,
    facts: Mapping[str, Any],
    centre: PerformanceFigures,
    found: list[Point],
    file: KeptFile | None,
    *,
    progress: bool,
) -> LandscapeResults:
    num_points = len(surface.x) * len(surface.y)

    def save() -> LandscapeResults:
        results = _collect(facts, centre, found)
        if file is not None:
            file.write(results)
        return results

    save()  # before hours of work, so that a place that cannot be written is known now
    written = time.monotonic()
    try:
        for number in tqdm(range(len(found), num_points), initial=len(found), total=num_points, disable=not progress):
            figures = surface.measure_at(
                surface.x[number % len(surface.x)], surface.y[number // len(surface.x)]
            ).figures
            found.append(Point(figures["loss"], figures["accuracy"]))
            if time.monotonic() - written >= SECONDS_BETWEEN_WRITES:
                save()
                written = time.monotonic()
    finally:
        results = save()
    return results


def _collect(facts: Mapping[str, Any], centre: PerformanceFigures, found: list[Point]) -> LandscapeResults:
    """Returns the results of the points that are measured, row by row; of those that are not, None."""
    num_x, num_y = len(facts["x"]), len(facts["y"])
    padded = found + [Point(None, None)] * (num_x * num_y - len(found))
    rows = [padded[num_x * row : num_x * (row + 1)] for row in range(num_y)]
    losses = [[point.loss for point in row] for row in rows]
    return {
        "mode": facts["mode"],
        "x": facts["x"],
        "y": facts["y"],
        "span": facts["span"],
        "losses": losses,
        "accuracies": [[point.accuracy for point in row] for row in rows],
        "centre": centre,
        "num_nonfinite": sum(point.loss is None for point in found),
        "num_measured": len(found),
        "sharpness": find_rises(losses, centre["loss"]) if facts["mode"] == "plane" else [],
        "normalisation": facts["normalisation"],
        "seeds": facts["seeds"],
        "parameters": facts["parameters"],
        "settings": facts["settings"],
    }


def _describe(weight: Weight) -> MovedParameter:
    shape = weight.shape
    num_filters = torch.Size(shape[dim] for dim in weight.output_dims).numel()
    return {"name": weight.name, "shape": list(shape), "num_weights": shape.numel(), "num_filters": num_filters}


def _describe_settings(
    model: nn.Module, seed: int, *, mask: Mask | None = None, end_state: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    inner = unwrap(model)
    own = dict(inner.named_parameters()) | dict(inner.named_buffers())
    return {
        "format": FORMAT,
        "seed": int(seed),
        "model_sha256": hash_state({clean_name(name): tensor for name, tensor in own.items()}),
        "mask_sha256": None if mask is None else mask.digest,
        "end_state_sha256": None if end_state is None else hash_state(_pick_tensors(end_state)),
    }


def _pick_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _space(span: float, num_points: int) -> list[float]:
    """Returns points from -span to span, symmetric about zero; zero alone when there is one."""
    # From integers, so that the middle is exactly 0, the model itself.
    return [span * (2 * number - (num_points - 1)) / max(1, num_points - 1) for number in range(num_points)]

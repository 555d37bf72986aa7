"""How fast this machine computes, in some two seconds: calls of several sizes, each timed at its best."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import accumulate, repeat
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets._core.prunable_weights import find_filtered_weights
from lottery_tickets._core.rates.kept import DeviceRates, NoRateError, Points, name_points, write_rates
from lottery_tickets._core.rates.work import (
    CALLING,
    CONVOLUTION,
    CONVOLUTION_BACKWARD,
    FLOPS_EACH,
    MEMORY,
    MOVING,
    NO_DTYPE,
    PRODUCT,
    SELECTION,
    WorkCounter,
    name_dtype,
)
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.weights import Weights
from lottery_tickets.doctor.checking import Finding
from lottery_tickets.landscape.directions import MovedWeights

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SIDES: Final = (8, 64, 256, 768)  # of matrices
PRODUCTS: Final = 3  # forward, and the two of a backward pass
CONVOLUTIONS: Final = ((1, 4, 8), (8, 16, 8), (4, 16, 32), (32, 16, 32))  # images, channels, side
KERNEL: Final = 3
ROW: Final = 64  # elements
ELEMENTS: Final = (ROW, 1 << 14, 1 << 18, 1 << 20, 1 << 21, 1 << 24)
OPERATIONS: Final = 3  # on elements: a sum, a function, a normalisation by row
ACCESSES: Final = 7  # of these: three, two and two
SMALL: Final = 8  # width and depth of a network whose operations take hardly any time themselves
SELECTED: Final = (1 << 10, 1 << 16, 1 << 21)
MOVED_SIDES: Final = (16, 256, 1024)
SECONDS_EACH: Final = 0.03  # of a size; no size is taken that is expected to last longer than
SECONDS_AT_MOST: Final = 0.15
SHORTEST: Final = 0.0005  # that is timed: shorter calls are timed several at a time
GIGA: Final = 1e9


class Call(NamedTuple):
    """What is timed.

    Attributes:
        size: Of one call, in the unit of its kind.
        num_calls: That `run` makes.
        run: Makes them.
    """

    size: int
    num_calls: int
    run: Callable[[], object]


def check_speed(devices: list[str]) -> Finding:
    """Returns what was measured, in words, and keeps it for `plan_memory`; a place that cannot be written is a note.

    Args:
        devices: By torch's names.
    """
    rates = {device: measure_rates(device) for device in devices}
    found = "; ".join(f"{device}: {_describe(rates[device])}" for device in devices)
    try:
        place = write_rates(rates)
    except OSError as error:
        advice = f"not kept, so that plans foretell no times: {error}; export XDG_CACHE_HOME=/path/to/folder"
        return Finding("", found, advice=advice)
    return Finding("", f"{found}; {torch.get_num_threads()} threads; kept in {place}")


def measure_rates(device: str) -> DeviceRates:
    """Returns the rates of a device; kinds and dtypes that it cannot compute are left out.

    Args:
        device: By torch's name.
    """
    points: dict[str, Points] = {}
    with torch.random.fork_rng(devices=[]):
        for dtype in DTYPES:
            _take(points, name_points(PRODUCT, name_dtype(dtype)), _list_products(device, dtype), device)
        for dtype in DTYPES[:2]:
            name = name_dtype(dtype)
            _take(points, name_points(CONVOLUTION, name), _list_convolutions(device, dtype, backward=False), device)
            backward = _list_convolutions(device, dtype, backward=True)
            _take(points, name_points(CONVOLUTION_BACKWARD, name), backward, device)
        _take(points, name_points(MEMORY, NO_DTYPE), _list_sums(device), device)
        _add_calling(points, device)
        if device == "cpu":
            _take(points, name_points(SELECTION, NO_DTYPE), _list_selections(), device)
            _take(points, name_points(MOVING, NO_DTYPE), _list_moves(), device)
    return DeviceRates(_name(device), points)


def _take(points: dict[str, Points], name: str, calls: Iterator[Call], device: str) -> None:
    """Times calls of growing sizes, until the next is expected to take too long or cannot be computed."""
    found: Points = []
    try:
        for call in calls:
            if found and found[-1][1] * call.size / found[-1][0] * call.num_calls > SECONDS_AT_MOST:
                break
            seconds = _time(call, device)
            if seconds > 0:
                found.append((call.size, seconds))
    except (RuntimeError, NotImplementedError):  # a dtype that a device does not have
        pass
    if found:
        points[name] = list(zip((size for size, _ in found), accumulate((s for _, s in found), max), strict=True))


def _time(call: Call, device: str) -> float:
    """Returns the least seconds of a call, so that what else the machine does counts for little."""
    first = _time_several(call, 1, device)
    first = min(first, _time_several(call, 1, device))  # the first one loads code
    if not first > 0:  # by a clock that stands still, or tells no number
        return 0.0
    num_repeats = max(1, int(SHORTEST / first))
    num_blocks = max(1, min(50, int(SECONDS_EACH / (first * num_repeats))))
    blocks = [_time_several(call, num_repeats, device) / num_repeats for _ in range(num_blocks)]
    return min(first, *blocks) / call.num_calls


def _time_several(call: Call, num_repeats: int, device: str) -> float:
    # The seconds of a single thread are told by a clock that stands still while others have the processor.
    tell = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    start = tell()
    for _ in repeat(None, num_repeats):
        call.run()
    _wait(device)
    return tell() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _list_products(device: str, dtype: torch.dtype) -> Iterator[Call]:
    for side in SIDES:
        one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        yield Call(FLOPS_EACH * side**3, PRODUCTS, partial(_multiply, one, other))


def _multiply(one: Tensor, other: Tensor) -> None:
    _ = one @ other, one.mT @ other, one @ other.mT


def _list_convolutions(device: str, dtype: torch.dtype, *, backward: bool) -> Iterator[Call]:
    for num_images, channels, side in CONVOLUTIONS:
        shape = (num_images, channels, side, side)
        images, gradients = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
        weight = torch.randn(channels, channels, KERNEL, KERNEL, device=device).to(dtype)
        num_flops = FLOPS_EACH * images.numel() * channels * KERNEL**2
        how = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)  # stride, padding, dilation, transposed, its padding, groups
        run: Callable[..., object] = torch.ops.aten.convolution.default
        if backward:
            run = partial(torch.ops.aten.convolution_backward.default, gradients, output_mask=[True, True, False])
        yield Call(num_flops * (1 + backward), 1, partial(run, images, weight, None, *how))


def _list_sums(device: str) -> Iterator[Call]:
    for num_elements in ELEMENTS:
        one, other = (torch.ones(num_elements // ROW, ROW, device=device) for _ in range(2))
        yield Call(ACCESSES * one.nbytes // OPERATIONS, OPERATIONS, partial(_compute, one, other))


def _compute(one: Tensor, other: Tensor) -> None:
    _ = one + other
    _ = functional.silu(one)
    _ = functional.softmax(one, dim=1)


def _add_calling(points: dict[str, Points], device: str) -> None:
    """Adds what a call takes beside itself: a training step of a small network, less what its operations take."""
    layers = (layer for _ in range(SMALL) for layer in (nn.Linear(SMALL, SMALL), nn.ReLU()))
    model = nn.Sequential(*layers).to(device)
    inputs, targets = torch.ones(1, SMALL, device=device), torch.zeros(1, dtype=torch.int64, device=device)

    def step() -> None:
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()

    step()
    with WorkCounter() as counter:
        step()
    with suppress(NoRateError):  # where the operations themselves could not be timed
        beside = _time(Call(1, 1, step), device) - DeviceRates("", points).foretell(counter.work)
        if beside > 0:
            points[CALLING] = [(round(counter.work.num_calls), beside)]


def _list_selections() -> Iterator[Call]:
    for num_weights in SELECTED:
        weights = Weights.from_tensors({"weight": torch.randn(num_weights)})
        yield Call(num_weights, 1, partial(select_largest, weights, num_weights // 2))


def _list_moves() -> Iterator[Call]:
    for side in MOVED_SIDES:
        layer = nn.Linear(side, side, bias=False)
        moved = MovedWeights(layer, find_filtered_weights(layer), (1, 2), kept_bytes=0)
        yield Call(side * side, 1, partial(_move, layer, moved))


def _move(layer: nn.Linear, moved: MovedWeights) -> None:
    with torch.no_grad(), moved.at(0.5, 0.5):
        functional.relu(layer.weight)


def _describe(rates: DeviceRates) -> str:
    products = [(name_dtype(dtype), rates.find_largest_rate(PRODUCT, name_dtype(dtype))) for dtype in DTYPES]
    words = ", ".join(f"{name} {rate / GIGA:,.3g}" for name, rate in products if rate)
    memory = rates.find_largest_rate(MEMORY)
    return f"products at {words} GFLOP/s" + (f", memory at {memory / GIGA:.3g} GB/s" if memory else "")


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device

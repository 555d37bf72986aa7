"""Planes correlated with planes: beside the weight gradients of torch's own depthwise convolutions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lottery_tickets._core.gradients import uses
from lottery_tickets._core.gradients.arithmetic import threads
from lottery_tickets._core.gradients.arithmetic.correlating_cpu import SIDE_BY_SIDE
from lottery_tickets._core.gradients.arithmetic.correlations import (
    MIN_POSITIONS,
    MOST_SIDE_BY_SIDE,
    Window,
    add_squares_of_channels,
    correlate,
    prefers_planes,
    prefers_side_by_side,
)
from tests.lottery_tickets._core.gradients.cases import check_squares, draw, draw_classes

CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}


def make_operands(window: Window, size: tuple[int, ...], num_planes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns gradients of outputs, inputs, and what torch says is the gradient of the kernels; float64."""
    generator = torch.Generator().manual_seed(num_planes)
    inputs = torch.randn(1, num_planes, *size, dtype=torch.float64, generator=generator)
    kernels = torch.zeros(num_planes, 1, *window.kernel_size, dtype=torch.float64, requires_grad=True)
    outputs = CONVOLUTIONS[len(size)](inputs, kernels, None, window.stride, window.padding, window.dilation, num_planes)
    gradients = torch.randn(outputs.shape, dtype=torch.float64, generator=generator)
    outputs.backward(gradients)
    assert kernels.grad is not None
    return gradients[0], inputs[0], kernels.grad[:, 0]


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@given(
    numbers=st.tuples(pairs(1, 7), pairs(1, 3), pairs(0, 5), pairs(1, 3), pairs(1, 20)),
    num_spatial=st.integers(1, 2),
    num_planes=st.integers(1, 5),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_planes_are_correlated_as_torch_does(
    numbers: tuple[tuple[int, ...], ...], num_spatial: int, num_planes: int, dtype: torch.dtype
) -> None:
    kernel_size, stride, padding, dilation, size = (two[:num_spatial] for two in numbers)
    seen = zip(size, padding, dilation, kernel_size, strict=True)
    assume(all(n + 2 * width > step * (length - 1) for n, width, step, length in seen))
    window = Window(kernel_size, stride, padding, dilation)
    gradients, inputs, expected = make_operands(window, size, num_planes)

    found = correlate(gradients.to(dtype), inputs.to(dtype), window)

    assert found.dtype == dtype
    tolerance = 400 * torch.finfo(dtype).eps  # a sum has up to 400 terms of about 1
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@given(
    numbers=st.tuples(pairs(1, 5), pairs(1, 3), pairs(0, 3), pairs(1, 2), pairs(1, 6)),
    num_spatial=st.integers(1, 2),
    counts=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_squares_of_small_planes_are_those_of_torch(
    numbers: tuple[tuple[int, ...], ...], num_spatial: int, counts: tuple[int, int], dtype: torch.dtype
) -> None:
    kernel_size, stride, padding, dilation, size = (two[:num_spatial] for two in numbers)
    seen = zip(size, padding, dilation, kernel_size, strict=True)
    assume(all(n + 2 * width > step * (length - 1) for n, width, step, length in seen))
    window = Window(kernel_size, stride, padding, dilation)
    num_samples, num_channels = counts
    gradients, inputs, kernels = (
        tensor.unflatten(0, counts) for tensor in make_operands(window, size, num_samples * num_channels)
    )
    sums = torch.ones(num_channels, kernels[0, 0].numel(), dtype=dtype)

    held = add_squares_of_channels(sums, gradients.to(dtype), inputs.to(dtype), window, num_samples - 1)

    tolerance = 400 * torch.finfo(dtype).eps
    assert held is not None
    torch.testing.assert_close(held.double(), kernels[-1].flatten(1), rtol=tolerance, atol=tolerance)
    squares = kernels.flatten(2).square().sum(0)
    torch.testing.assert_close(sums.double(), 1 + squares, rtol=10 * tolerance, atol=10 * tolerance)
    assert add_squares_of_channels(sums, gradients.to(dtype), inputs.to(dtype), window, None) is None


def test_squares_of_more_channels_than_go_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LEAST_A_THREAD", 1)
    num_channels = 2 * SIDE_BY_SIDE + 9
    window = Window((3, 3), (2, 1), (1, 1), (1, 1))
    gradients, inputs, kernels = (
        tensor.unflatten(0, (2, num_channels)) for tensor in make_operands(window, (5, 4), 2 * num_channels)
    )
    before, found = torch.get_num_threads(), []
    for num_threads in (1, 2, 3):
        sums = torch.zeros(num_channels, 9, dtype=torch.float64)
        torch.set_num_threads(num_threads)
        try:
            held = add_squares_of_channels(sums, gradients, inputs, window, 0)
        finally:
            torch.set_num_threads(before)
        assert held is not None
        found.append((sums, held))
    torch.testing.assert_close(found[0][0], kernels.flatten(2).square().sum(0))
    torch.testing.assert_close(found[0][1], kernels[0].flatten(1))
    assert all(torch.equal(one, other) for pair in found for one, other in zip(pair, found[0], strict=True))


def test_bits_depend_neither_on_threads_nor_on_what_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LEAST_A_THREAD", 1)
    window = Window((5, 5), (1, 1), (2, 2), (1, 1))
    gradients, inputs, _ = make_operands(window, (9, 7), 6)
    before, found = torch.get_num_threads(), []
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        try:
            found.append(correlate(gradients, inputs, window))
        finally:
            torch.set_num_threads(before)
    found.append(correlate(gradients.mT.contiguous().mT, inputs.mT.contiguous().mT, window))
    assert all(torch.equal(found[0], one) for one in found)


def prefers(outputs: Tensor, window: Window) -> bool:
    return prefers_planes(outputs, outputs, window)


def test_torch_computes_what_it_is_faster_at() -> None:
    plain = Window((3, 3), (1, 1), (1, 1), (1, 1))
    large, small = torch.zeros(2, 14, 14), torch.zeros(2, 13, 14)
    assert large[0].numel() == MIN_POSITIONS
    assert prefers(large, plain)
    assert not prefers(small, plain)
    assert prefers(torch.zeros(2, 2, 14), plain)  # mostly padding
    assert not prefers(large, Window((3, 3), (2, 2), (1, 1), (1, 1)))
    assert prefers(small, Window((3, 3), (1, 1), (2, 2), (2, 2)))
    assert prefers(small, Window((7, 7), (2, 2), (3, 3), (1, 1)))
    assert not prefers(large.bfloat16(), plain)
    assert not prefers(large.to("meta"), plain)
    with FakeTensorMode():
        assert not prefers(torch.zeros(2, 14, 14), plain)
    cube = Window((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1))
    assert not prefers(torch.zeros(2, 14, 14, 14), cube)


def test_small_planes_go_side_by_side() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    small, large = torch.zeros(2, 8, MOST_SIDE_BY_SIDE // 16), torch.zeros(2, 8, MOST_SIDE_BY_SIDE // 16 + 1)
    assert prefers_side_by_side(small, small, window)
    assert not prefers_side_by_side(small, large, window)
    assert not prefers_side_by_side(small.bfloat16(), small.bfloat16(), window)
    assert not prefers_side_by_side(small.to("meta"), small.to("meta"), window)


@pytest.mark.parametrize(
    ("convolution", "way"),
    [
        (nn.Conv2d(6, 6, 7, padding=3, groups=6), "correlate"),
        (nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6), "add_squares_of_channels"),
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(6, 6, 4, padding=3, groups=6)), "correlate"),
        (nn.Conv2d(6, 6, 13, padding=6, groups=6), "correlate"),  # mostly padding
        (nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6), "add_squares_of_channels"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1, groups=6)), "add_squares_of_channels"),
        (nn.Conv2d(6, 12, 5, padding=2, groups=6), None),  # two kernels a channel
    ],
)
def test_depthwise_networks_have_the_squares_of_single_samples(
    convolution: nn.Module, way: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: set[str] = set()

    def watch(name: str) -> None:
        function: Callable[..., Tensor | None] = getattr(uses, name)

        def call(*args: Any) -> Tensor | None:  # noqa: ANN401 - whatever it takes
            ways.add(name)
            return function(*args)

        monkeypatch.setattr(uses, name, call)

    watch("correlate")
    watch("add_squares_of_channels")
    model = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.LazyLinear(5)).double()
    batches = [(draw(4, 6, 8, 8), draw_classes(4))]
    model(batches[0][0])

    check_squares(model, batches)

    assert ways == ({way} if way else set())


def test_squares_of_several_small_images_a_sample_are_of_their_sum() -> None:
    model = nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Flatten(0, 1), nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Tanh(),
        nn.Unflatten(0, (-1, 2)), nn.Flatten(), nn.Linear(96, 5),
    ).double()  # fmt: skip
    check_squares(model, [(draw(4, 6, 4, 4), draw_classes(4))])

"""Planes correlated with planes: beside the weight gradients of torch's own depthwise convolutions."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lottery_tickets._core.gradients import uses
from lottery_tickets._core.gradients.arithmetic import threads
from lottery_tickets._core.gradients.arithmetic.correlations import MIN_POSITIONS, Window, correlate, prefers_planes
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


@pytest.mark.parametrize(
    ("convolution", "is_correlated"),
    [
        (nn.Conv2d(6, 6, 7, padding=3, groups=6), True),
        (nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6), True),
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(6, 6, 4, padding=3, groups=6)), True),
        (nn.Conv2d(6, 6, 13, padding=6, groups=6), True),  # mostly padding
        (nn.Conv2d(6, 12, 5, padding=2, groups=6), False),  # two kernels a channel
    ],
)
def test_depthwise_networks_have_the_squares_of_single_samples(
    convolution: nn.Module, is_correlated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = set()

    def watch(gradients: Tensor, inputs: Tensor, window: Window) -> Tensor:
        shapes.add(gradients.shape)
        return correlate(gradients, inputs, window)

    monkeypatch.setattr(uses, "correlate", watch)
    model = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.LazyLinear(5)).double()
    batches = [(draw(4, 6, 8, 8), draw_classes(4))]
    model(batches[0][0])

    check_squares(model, batches)

    assert bool(shapes) == is_correlated

"""Shortcuts of the backward pass: beside torch's own gradients, wherever norms, clamps and 1 x 1 convolutions stand."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from lottery_tickets import compute_fisher_importance
from lottery_tickets._core.gradients import shortcuts
from lottery_tickets._core.gradients.arithmetic.products import fill_mixed
from lottery_tickets._core.gradients.shortcuts import SHORTCUTS, may_shorten, mix_channels
from tests.lottery_tickets._core.gradients.cases import draw, draw_classes, loop_over_samples

CHANNELS = 6
Body = Callable[[nn.Module, Tensor], Tensor]


class Taking(TorchFunctionMode):
    """Takes each shortcut that there is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - torch's protocol
        shortcut = SHORTCUTS.get(func)
        return func(*args, **(kwargs or {})) if shortcut is None else shortcut(func, *args, **(kwargs or {}))


def make_norm(kind: type[nn.Module] = nn.BatchNorm2d, **options: Any) -> nn.Module:  # noqa: ANN401 - of the norm
    """Returns a batch norm in evaluation, of numbers that differ between channels, and without gradients."""
    norm = kind(CHANNELS, **options).eval().requires_grad_(requires_grad=False)
    for numbers in norm.state_dict().values():
        if numbers.is_floating_point():
            nn.init.uniform_(numbers, 0.5, 2)
    return norm


def add_before_relu(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = norm(inputs)
    outputs += inputs  # as in residual networks
    clamped: Tensor = functional.relu(outputs, inplace=True)
    return clamped


def use_twice(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = norm(inputs)
    return functional.relu6(outputs) * outputs + functional.relu(outputs)


def forget_result(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = norm(inputs)
    functional.relu(outputs, inplace=True)  # whose result is the same tensor
    return outputs


def change_data(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs = norm(inputs)
    outputs.data.neg_()  # of which autograd knows nothing
    return functional.relu(outputs)


def train(norm: nn.Module, inputs: Tensor) -> Tensor:
    return functional.relu(copy.deepcopy(norm).train()(inputs))


def hook(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs = norm(inputs)
    outputs.register_hook(lambda gradient: 2 * gradient)
    return functional.relu(outputs)


def retain(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs = norm(inputs)
    outputs.retain_grad()
    return functional.relu(outputs)


def vectorise(norm: nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = vmap(lambda factor: functional.relu(norm(inputs * factor)))(torch.tensor([1.0, -2.0])).sum(0)
    return outputs


SHORT: dict[str, Body] = {
    "relu": lambda norm, x: functional.relu(norm(x)),
    "relu in place": lambda norm, x: functional.relu(norm(x), inplace=True),
    "relu, a method": lambda norm, x: norm(x).relu(),
    "relu in place, a method": lambda norm, x: norm(x).relu_(),
    "torch.relu": lambda norm, x: torch.relu(norm(x)),
    "torch.relu_": lambda norm, x: torch.relu_(norm(x)),
    "relu6": lambda norm, x: functional.relu6(norm(x)),
    "hardtanh": lambda norm, x: functional.hardtanh(norm(x), -0.5, max_val=0.7),
    "hardtanh by keywords": lambda norm, x: functional.hardtanh(input=norm(x), max_val=0.7),
    "hardtanh in place": lambda norm, x: functional.hardtanh(norm(x), inplace=True),
    "channels last": lambda norm, x: functional.relu(norm(x.contiguous(memory_format=torch.channels_last))),
    "turned": lambda norm, x: functional.relu(norm(x.mT)),
    "data changed": change_data,
    "result forgotten": forget_result,
}
"""With a clamp that is differentiated together with the norm before it."""
LONG: dict[str, Body] = {
    "bare": lambda norm, x: norm(x),
    "tanh": lambda norm, x: torch.tanh(norm(x)),
    "before": lambda norm, x: norm(functional.relu(x)),
    "of something else": lambda norm, x: functional.relu(norm(x) - 1),
    "added to in place": add_before_relu,
    "used twice": use_twice,
    "hook": hook,
    "gradient retained": retain,
    "vmap": vectorise,
    "in training": train,
    "statistics of the batch": lambda _, x: functional.relu(functional.batch_norm(x, None, None, training=True)),
}
"""Which end otherwise."""


def differentiate(body: Body, norm: nn.Module, numbers: Tensor, *, is_short: bool) -> tuple[Tensor, Tensor]:
    """Returns outputs, and the gradient of the inputs."""
    inputs = numbers.clone().requires_grad_()
    if is_short:
        with Taking():
            outputs = body(norm, inputs * 1)
    else:
        outputs = body(norm, inputs * 1)
    generator = torch.Generator().manual_seed(1)
    outputs.backward(torch.randn(outputs.shape, dtype=outputs.dtype, generator=generator))
    assert inputs.grad is not None
    return outputs, inputs.grad


@pytest.mark.parametrize("name", [*SHORT, *LONG])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_torch(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm, inputs = make_norm().to(dtype), torch.randn(4, CHANNELS, 5, 5, dtype=dtype)
    body = (SHORT | LONG)[name]

    outputs, gradient = differentiate(body, norm, inputs, is_short=True)

    expected_outputs, expected = differentiate(body, norm, inputs, is_short=False)
    assert torch.equal(outputs, expected_outputs)
    torch.testing.assert_close(gradient, expected)
    assert gradient.stride() == expected.stride()
    names = {type(node).__name__ for node in walk(outputs.grad_fn)}
    assert ("_ClampBackward" in names) == (name in SHORT or name == "used twice")


def walk(node: Any) -> list[Any]:  # noqa: ANN401 - of autograd
    return [] if node is None else [node, *(found for following, _ in node.next_functions for found in walk(following))]


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (4, 6)), (nn.BatchNorm1d, (4, 6, 7)), (nn.BatchNorm3d, (4, 6, 2, 3, 2))]
)
@pytest.mark.parametrize("affine", [False, True])
def test_norms_of_any_dimension_are_scaled(kind: type[nn.Module], shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(0)
    norm, inputs = make_norm(kind, affine=affine), torch.randn(shape)
    body = SHORT["relu"]
    outputs, gradient = differentiate(body, norm, inputs, is_short=True)
    assert type(outputs.grad_fn).__name__ == "_ClampBackward"
    torch.testing.assert_close(gradient, differentiate(body, norm, inputs, is_short=False)[1])


def test_numbers_that_are_not_finite_pass_as_torch_lets_them() -> None:
    norm, inputs = make_norm(), torch.randn(4, CHANNELS, 5, 5)
    inputs[0, 0, 0], inputs[1, 1, 1] = float("nan"), float("inf")
    for name in ("relu", "relu6", "hardtanh"):
        gradients = [differentiate(SHORT[name], norm, inputs, is_short=is_short)[1] for is_short in (True, False)]
        torch.testing.assert_close(*gradients, equal_nan=True)


def test_where_more_is_differentiated_torch_does_it() -> None:
    inputs = torch.randn(4, CHANNELS, 5, 5)
    trained = make_norm().requires_grad_()
    mixed = make_norm().to(torch.float32)
    cases: list[tuple[nn.Module, Tensor]] = [
        (trained, inputs.clone().requires_grad_()),
        (make_norm(), inputs),
        (mixed, inputs.bfloat16().requires_grad_()),
        (make_norm().to("meta"), inputs.to("meta").requires_grad_()),
    ]
    with FakeTensorMode():
        cases.append((make_norm(), torch.randn(4, CHANNELS, 5, 5, requires_grad=True)))
    for norm, numbers in cases:
        with Taking():
            outputs = norm(numbers * 1)
        assert type(outputs.grad_fn).__name__ in {"NativeBatchNormBackward0", "NoneType"}


@pytest.mark.parametrize("inplace", [False, True])
def test_fisher_takes_them_and_is_the_mean_of_squares_one_by_one(inplace: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace),
        nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS), nn.BatchNorm2d(CHANNELS), nn.ReLU6(inplace),
        nn.Flatten(), nn.LazyLinear(5),
    ).double()  # fmt: skip
    batches = [(draw(4, 3, 8, 8), draw_classes(4))]
    model(batches[0][0])  # which also fills the norms' running statistics
    model.eval()
    assert all(parameter.requires_grad for parameter in model.parameters())

    assert may_shorten()  # and is not tried meanwhile
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        found = compute_fisher_importance(model, batches, 4)

    num_norms = sum(event.name == "aten::native_batch_norm_backward" for event in profiled.events())
    assert num_norms == 0, "torch differentiates none, as no sample is run alone"
    gradients = loop_over_samples(model, batches, list(found))
    for name, score in found.items():
        torch.testing.assert_close(score, gradients[name].square().mean(0).float())


def _pass_all(gradient: Tensor, _: Tensor) -> Tensor:
    return gradient * 1


@pytest.mark.parametrize("broken", ["mix", "norm", "relu", "relu6"])
def test_shortcuts_that_are_wrong_are_not_taken(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_shorten()

    def mix_wrongly(mixed: Tensor, matrix: Tensor, samples: Tensor) -> None:
        fill_mixed(mixed, matrix, samples)
        mixed[0] *= 1.001

    monkeypatch.setattr(shortcuts, "is_intel", lambda: True)
    if broken == "mix":
        monkeypatch.setattr(shortcuts, "fill_mixed", mix_wrongly)
    elif broken == "norm":
        monkeypatch.setattr(shortcuts, "_find_factors", lambda *_: torch.ones(3))
    else:
        function = getattr(functional, broken)
        monkeypatch.setitem(SHORTCUTS, function, partial(shortcuts.clamp, lambda **_: _pass_all))
    shortcuts._are_right.cache_clear()
    assert not may_shorten()
    monkeypatch.undo()
    shortcuts._are_right.cache_clear()
    assert may_shorten()


class Watching(TorchDispatchMode):
    """A mode of the caller's, which may change what torch's functions do."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - torch's protocol
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_free", [False, True])
def test_torchs_own_steps_are_taken_in_a_mode_of_the_callers(is_free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    plain: Any = shortcuts._Clamp.apply

    def note(*given: object) -> object:
        taken.append(1)
        return plain(*given)

    monkeypatch.setattr(shortcuts._Clamp, "apply", note)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
    mode: Any = nullcontext if is_free else Watching
    with mode():
        compute_fisher_importance(model, [(torch.randn(4, 3, 4, 4), draw_classes(4))], 4)
    assert bool(taken) == is_free


CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 2, 2), (3, 4, 5, 5), (1, 4, 6, 7), (3, 4, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("has_bias", [False, True])
def test_channels_are_mixed_as_a_convolution_of_1_x_1_does(
    shape: tuple[int, ...], dtype: torch.dtype, has_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcuts, "is_intel", lambda: True)
    weight, bias = torch.randn(6, 4, *[1] * (len(shape) - 2), dtype=dtype), torch.randn(6, dtype=dtype)
    inputs = torch.randn(shape, dtype=dtype, requires_grad=True)
    expected = CONVOLUTIONS[len(shape)](inputs, weight, bias if has_bias else None)

    mixed, back = mix_channels(lambda: expected, inputs * 1, weight, bias if has_bias else None)

    assert back is not None
    assert not mixed.requires_grad
    assert not mixed._is_view(), "which could not be changed in place"
    torch.testing.assert_close(mixed, expected)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(back(gradient), torch.autograd.grad(expected, inputs, gradient)[0])


def test_channels_are_mixed_by_torch_where_that_is_faster_or_more_is_differentiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, weight = torch.randn(3, 4, 5, 5, requires_grad=True) * 1, torch.randn(6, 4, 1, 1)
    cases = [
        (inputs.contiguous(memory_format=torch.channels_last), weight),
        (inputs.detach(), weight),
        (inputs, weight.clone().requires_grad_()),
        (inputs.to("meta"), weight.to("meta")),
        (inputs[0], weight),
    ]
    monkeypatch.setattr(shortcuts, "is_intel", lambda: True)
    for given, kernels in cases:
        assert mix_channels(lambda: inputs, given, kernels, None) == (inputs, None)
    monkeypatch.setattr(shortcuts, "is_intel", lambda: False)
    assert mix_channels(lambda: inputs, inputs, weight, None) == (inputs, None)

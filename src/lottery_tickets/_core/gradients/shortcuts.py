"""Backward steps of calls without a weight of interest, made here, because torch's read what they need several times.

In evaluation a batch norm scales each channel, and a ReLU behind it passes a gradient or does not. torch's backward
pass of such a norm also adds up what only the gradients of its own weights need. Here torch makes the ReLU's gradient,
which is scaled where it lies: one step back to the inputs of the norm.

A convolution of 1 x 1 mixes channels, position by position; torch hands its gradient to oneDNN, which copies it to a
layout of its own and back. Here it is a matrix product.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _get_current_dispatch_mode  # there is no public way to ask

from lottery_tickets._core.gradients.arithmetic.products import fill_mixed, is_intel

SCALED: Final = "_lottery_scaled"  # attribute of a norm's outputs
DTYPES: Final = (torch.float32, torch.float64)

Function = Callable[..., Any]
Differentiate = Callable[[Tensor, Tensor], Tensor]
Back = Callable[[Tensor], Tensor]


class Scaled(NamedTuple):
    """What outputs were scaled from.

    Attributes:
        inputs: Of the norm, in the graph.
        factors: Of each channel, shape (channels, 1, ...).
        version: Of the outputs then; later they may be something else.
    """

    inputs: Tensor
    factors: Tensor
    version: int


def scale_channels(
    function: Function, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """batch_norm with the running statistics, none of which has a gradient."""
    run = partial(function, input, running_mean, running_var, weight, bias, training, momentum, eps)
    constants = [tensor for tensor in (running_var, weight, bias) if tensor is not None]
    if training or running_var is None or not _is_plain(input, constants):
        plain: Tensor = run()
        return plain
    factors = _find_factors(running_var, weight, eps).view(-1, *[1] * (input.ndim - 2))
    scaled: Tensor = _Scale.apply(input, run, factors)  # type: ignore[no-untyped-call]  # torch's
    setattr(scaled, SCALED, Scaled(input, factors, scaled._version))  # noqa: SLF001 - by which autograd knows it too
    return scaled


def mix_channels(
    run: Callable[[], Tensor], inputs: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Back | None]:
    """Returns the fresh output of a convolution of 1 x 1, and its backward step; None where torch's graph has that.

    Args:
        run: Lets torch compute the output.
        inputs: Of the convolution.
        weight: Shape (outputs, channels, 1, ...).
        bias: Of its outputs.
    """
    constants = [weight] if bias is None else [weight, bias]
    is_here = inputs.ndim == weight.ndim and _is_plain(inputs, constants) and inputs.is_contiguous()
    if not (is_here and is_intel()):
        return run(), None
    matrix = weight.flatten(1)
    with torch.no_grad():
        mixed = _mix(matrix, inputs)
        if bias is not None:
            mixed.add_(bias.view(-1, *[1] * (inputs.ndim - 2)))
    return mixed, partial(_mix, matrix.t())


def clamp(
    find_derivative: Callable[..., Differentiate], function: Function, input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """A clamp, in place or not; a shortcut where it is the first of a norm's outputs, which nothing has changed."""
    scaled: Scaled | None = vars(input).pop(SCALED, None)  # nor held any longer, with all inputs of the norm
    if scaled is None or scaled.version != input._version or _is_watched(input):  # noqa: SLF001 - as above
        clamped: Tensor = function(input, *args, **kwargs)
        return clamped
    run = partial(function, input, *args, **kwargs)
    clamped = _Clamp.apply(scaled.inputs, input, run, scaled.factors, find_derivative(*args, **kwargs))  # type: ignore[no-untyped-call]  # torch's
    return clamped  # noqa: RET504 - typed as a tensor above


def _find_factors(running_var: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Returns by what a norm multiplies each channel."""
    factors = (running_var + eps).rsqrt_()
    return factors if weight is None else factors.mul_(weight)


def _is_plain(inputs: Tensor, constants: list[Tensor]) -> bool:
    """Returns whether a gradient is wanted of the inputs alone, and all are numbers of one kind that lie here."""
    return (
        type(inputs) is Tensor
        and inputs.device.type == "cpu"
        and inputs.dtype in DTYPES
        and inputs.ndim > 1
        and inputs.requires_grad
        and not any(tensor.requires_grad or tensor.dtype != inputs.dtype for tensor in constants)
    )


def _mix(matrix: Tensor, inputs: Tensor) -> Tensor:
    mixed = inputs.new_empty(inputs.shape[0], matrix.shape[0], *inputs.shape[2:])
    fill_mixed(mixed.flatten(2), matrix, inputs.flatten(2))
    return mixed


def _is_watched(outputs: Tensor) -> bool:
    """Returns whether somebody waits for the gradient of just these outputs, which the shortcut goes past."""
    return bool(outputs._backward_hooks) or outputs.retains_grad  # noqa: SLF001 - torch tells it nowhere else


@final
class _Scale(torch.autograd.Function):
    """A norm whose backward pass scales channels."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, run: Callable[[], Tensor], factors: Tensor) -> Tensor:  # noqa: ARG004 - torch's protocol
        ctx.set_materialize_grads(False)  # None where all gradients have taken the shortcut
        ctx.factors = factors
        return run()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        return None if gradient is None else gradient * ctx.factors, None, None


@final
class _Clamp(torch.autograd.Function):
    """A clamp of a norm's outputs, whose backward pass goes to the inputs of the norm."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,  # noqa: ARG004 - to which the gradient goes
        clamped: Tensor,
        run: Callable[[], Tensor],
        factors: Tensor,
        derivative: Differentiate,
    ) -> Tensor:
        output = run()
        if output is clamped:
            ctx.mark_dirty(output)  # so that autograd knows of what was done in place
        ctx.save_for_backward(output)
        ctx.factors, ctx.derivative = factors, derivative
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        return ctx.derivative(gradient, output).mul_(ctx.factors), None, None, None, None


def _differentiate_relu(gradient: Tensor, output: Tensor) -> Tensor:
    passed: Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
    return passed


def _differentiate_hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Differentiate:  # noqa: ARG001 - torch's signature
    def differentiate(gradient: Tensor, output: Tensor) -> Tensor:
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, output, min_val, max_val)
        return passed

    return differentiate


_RELUS = (functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
SHORTCUTS: Final[dict[Function, Callable[..., Tensor]]] = {
    functional.batch_norm: scale_channels,
    functional.hardtanh: partial(clamp, _differentiate_hardtanh),
    functional.relu6: partial(clamp, lambda **_: _differentiate_hardtanh(0.0, 6.0)),
    **dict.fromkeys(_RELUS, partial(clamp, lambda **_: _differentiate_relu)),
}
"""By the torch function."""


def may_shorten() -> bool:
    """Returns whether to take shortcuts: they give torch's gradients, and no mode of the caller's changes torch's."""
    return _get_current_dispatch_mode() is None and _are_right()


@functools.cache
def _are_right() -> bool:
    """Tries each shortcut on a few numbers, once: another torch, or another processor, could compute otherwise."""
    numbers = torch.linspace(-4, 9, 96, device="cpu", dtype=torch.float32).view(2, 3, 4, 4)
    constants, weight = numbers[0, 1, :3, 0].abs() + 1, numbers[1].flatten()[:9].view(3, 3, 1, 1)
    with torch.inference_mode(mode=False), torch.enable_grad():
        found, expected = (_differentiate_clamps(numbers, constants, shortens=way) for way in (True, False))
        for size in (4, 2):  # many positions, and few
            inputs = numbers[..., :size, :size].contiguous().requires_grad_()
            run = functools.partial(functional.conv2d, inputs, weight)
            mixed, back = mix_channels(run, inputs * 1, weight, None)
            if back is not None:
                found += mixed, back(mixed)
                expected += run(), torch.autograd.grad(run(), inputs, mixed)[0]
    return all(map(torch.allclose, found, expected))


def _differentiate_clamps(numbers: Tensor, constants: Tensor, *, shortens: bool) -> list[Tensor]:
    """Returns outputs of norms and clamps, and gradients of their inputs."""
    found: list[Tensor] = []
    for function in (functional.relu, functional.relu6, functional.hardtanh):
        inputs = numbers.clone().requires_grad_()
        norm = partial(scale_channels, functional.batch_norm) if shortens else functional.batch_norm
        shortened = partial(SHORTCUTS[function], function) if shortens else function
        outputs = shortened(norm(inputs * 1, constants, constants, constants))
        found += outputs.detach(), *torch.autograd.grad(outputs, inputs, numbers)
    return found

"""A model that is trained for a while and then is bit for bit what it was."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from lottery_tickets._core.measuring.running import ModuleState


@contextlib.contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Within the block a model may be trained; then weights, buffers, attributes, gradients and modes are as before.

    A copy of weights and buffers lies on the CPU meanwhile. Gradients are set aside, so training starts without any.
    Which parameters are trained, `requires_grad`, is put back too.

    Args:
        model: Trained in place; its parameters must stay the same objects.
    """
    tensors = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in model.parameters()]
    state = ModuleState(model, "cpu")
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    for parameter, _, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in tensors:
                tensor.copy_(copy)
        state.put_back()
        for parameter, gradient, requires_grad in gradients:
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training

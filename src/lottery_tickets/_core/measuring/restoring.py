"""A model that is trained for a while and then is bit for bit what it was."""

import contextlib
from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn


@contextlib.contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Within the block a model may be trained; then weights, buffers, gradients and modes are as before.

    A copy of weights and buffers lies on the CPU meanwhile. Gradients are set aside, so training starts without any.
    Which parameters are trained, `requires_grad`, is put back too.

    Args:
        model: Trained in place; its parameters must stay the same objects.
    """
    tensors = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in chain(model.parameters(), model.buffers())]
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
        for parameter, gradient, requires_grad in gradients:
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training

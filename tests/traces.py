"""All that a function which only measures could leave behind on a model and in a process, to the bit."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, tuple, type(None))


def _bits(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(flat.data).hexdigest()}"


def _count_hooks(module: nn.Module) -> dict[str, int]:
    return {name: len(value) for name, value in vars(module).items() if "hook" in name and hasattr(value, "__len__")}


def _show_attributes(module: nn.Module) -> dict[str, str]:
    """Returns public attributes: numbers and words, and of other things what they are, as no two runs share them."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: repr(value) if isinstance(value, PLAIN) else str(type(value)) for name, value in public.items()}


def take_traces(model: nn.Module, *generators: torch.Generator) -> dict[str, Any]:
    """Weights, buffers, gradients, their identities, modes, attributes, hooks and generators.

    Not Python's own generator: the checks of annotations in the tests draw from it.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: _bits(tensor) for name, tensor in tensors.items()},
        "identities": {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors.items()},
        "requires_grad": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "gradients": {name: (id(p.grad), _bits(p.grad)) for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "attributes": {name: _show_attributes(module) for name, module in model.named_modules()},
        "momenta": {name: getattr(module, "momentum", None) for name, module in model.named_modules()},
        "hooks": {name: _count_hooks(module) for name, module in model.named_modules()},
        "parameter_hooks": {
            name: len(getattr(p, "_post_accumulate_grad_hooks", None) or ()) for name, p in model.named_parameters()
        },
        "torch": _bits(torch.get_rng_state()),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 - callers' code may use it
        "own": [_bits(generator.get_state()) for generator in generators],
        "grad_enabled": torch.is_grad_enabled(),
    }

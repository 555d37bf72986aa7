"""One weight, many names: what torch.compile, data parallelism and tying put around a parameter."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

COMPILED: Final = "_orig_mod"  # what torch.compile calls the model inside
COMPILED_PREFIX: Final = f"{COMPILED}."


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside what torch.compile and data parallelism wrapped around it."""
    inner = getattr(model, COMPILED, None)
    if isinstance(inner, nn.Module):
        return unwrap(inner)
    if isinstance(model, DataParallel | DistributedDataParallel):
        return unwrap(model.module)
    return model


def clean_name(name: str) -> str:
    """Returns a parameter's name without what torch.compile put into it."""
    return name.replace(COMPILED_PREFIX, "")


def identify(tensor: Tensor) -> object:
    """Returns a key that is equal for all names of one weight, also when two parameters share one storage."""
    # These have no address of their own; a tensor with a fake_mode is torch's stand-in for one, without values.
    if is_lazy(tensor) or tensor.device.type == "meta" or tensor.numel() == 0 or tensor.layout != torch.strided:
        return id(tensor)
    if getattr(tensor, "fake_mode", None) is not None:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

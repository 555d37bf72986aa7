"""One weight, many names: what torch.compile, data parallelism and tying put around a parameter."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from lottery_tickets._core.sharding.dtensors import see_local

COMPILED: Final = "_orig_mod"  # what torch.compile calls the model inside
WRAPPERS: Final = (f"{COMPILED}.", "_checkpoint_wrapped_module.")  # the second: checkpointing of activations


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside what torch.compile and data parallelism wrapped around it."""
    inner = getattr(model, COMPILED, None)
    if isinstance(inner, nn.Module):
        return unwrap(inner)
    if isinstance(model, DataParallel | DistributedDataParallel):
        return unwrap(model.module)
    return model


def clean_name(name: str) -> str:
    """Returns a parameter's name without what torch.compile and checkpointing put into it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def identify(tensor: Tensor) -> object:
    """Returns a key that is equal for all names of one weight, also when two parameters share one storage."""
    own, tensor = tensor, see_local(tensor)
    # These have no address of their own; a tensor with a fake_mode is torch's stand-in for one, without values.
    if is_lazy(tensor) or tensor.device.type == "meta" or tensor.numel() == 0 or tensor.layout != torch.strided:
        return id(own)
    if getattr(tensor, "fake_mode", None) is not None:
        return id(own)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

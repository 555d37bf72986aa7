"""Processes that have the same weights and see other samples: `DistributedDataParallel`."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lottery_tickets._core.names import COMPILED
from lottery_tickets._core.sharding.together import ALONE, Processes, Together


def find_data_parallel(model: nn.Module) -> Together:
    """Returns the processes that a model is trained by, as `DistributedDataParallel` around it says; else this one."""
    inner = getattr(model, COMPILED, None)
    if isinstance(inner, nn.Module):
        return find_data_parallel(inner)
    if not isinstance(model, DistributedDataParallel):
        return ALONE
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return Processes([model.process_group], device)


def share_out(number: int, together: Together) -> int:
    """Returns how many of so many samples this process sees; the first processes see one more where it is uneven."""
    each, rest = divmod(number, together.num_processes)
    return each + (together.place < rest)

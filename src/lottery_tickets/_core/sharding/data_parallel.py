"""Processes that have the same weights and see other samples: `DistributedDataParallel`."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lottery_tickets._core.names import COMPILED
from lottery_tickets._core.sharding.together import ALONE, Processes, Together
from lottery_tickets._core.weights import Weights


def find_processes(model: nn.Module, weights: Weights) -> Together:
    """Returns the processes that see other samples: those that the weights are shared out over, or those of DDP.

    Args:
        model: That is run.
        weights: Of it.
    """
    return find_data_parallel(model) if weights.shards is None else weights.together


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
    """Returns how many of so many samples this process sees; the first processes see one more where it is uneven.

    Raises:
        ValueError: When a process would see none.
    """
    if number < together.num_processes:
        raise ValueError(
            f"each of {together.num_processes} processes must see a sample, but num_samples is {number}; raise it"
        )
    each, rest = divmod(number, together.num_processes)
    return each + (together.place < rest)

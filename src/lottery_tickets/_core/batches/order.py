"""The order of a data loader's batches as a function of a seed, and whether a seed can change it at all."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.batches.resuming import find_generators
from lottery_tickets._core.identity.chance import under_seeds

MOST_COMPARED: Final = 16  # batches; two orders that agree on these count as the same


@contextlib.contextmanager
def ordered_by(dataloader: Iterable[Any], seed: int) -> Iterator[None]:
    """Within the block all generators that a loader draws from are seeded; afterwards they are as before.

    These are the global ones, the loader's own, and those inside of its data set.

    Args:
        dataloader: Whatever gives batches.
        seed: Decides order and augmentation.
    """
    with under_seeds(dataloader, find_generators(dataloader)) as reseed:
        reseed(seed)
        yield


def depends_on_seed(dataloader: Iterable[Any], first_seed: int, second_seed: int) -> bool:
    """Returns whether two seeds give different first batches, or the same ones in another order.

    Args:
        dataloader: Iterated over twice, a few batches each.
        first_seed: One seed.
        second_seed: The other.
    """
    with ordered_by(dataloader, first_seed):
        first = list(itertools.islice(dataloader, MOST_COMPARED))
    with ordered_by(dataloader, second_seed):
        second = list(itertools.islice(dataloader, MOST_COMPARED))
    return not _are_same(first, second)


def _are_same(first: Any, second: Any) -> bool:  # noqa: ANN401 - whatever batches hold
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_are_same(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_are_same, first, second))
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return bool(np.all(first == second))

"""Whether the order of batches depends on the seed is found out."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lottery_tickets._core.batches.order import depends_on_seed


@pytest.mark.parametrize("kind", ["tensor", "dict", "array", "text"])
def test_whether_a_seed_changes_the_batches(kind: str) -> None:
    make: dict[str, Callable[[int], Any]] = {
        "tensor": lambda n: (torch.full((2,), n), [n]),
        "dict": lambda n: {"input_ids": torch.full((2,), n), "text": [str(n)]},
        "array": lambda n: np.full(2, n),
        "text": str,
    }
    batches = [make[kind](n) for n in range(20)]
    assert not depends_on_seed([copy.deepcopy(batch) for batch in batches], 1, 2)
    assert not depends_on_seed(Shuffled(batches, is_shuffled=False), 1, 2)
    assert depends_on_seed(Shuffled(batches), 1, 2)
    assert not depends_on_seed(Shuffled(batches), 1, 1)


class Shuffled:
    """Batches in an order that Python's generator decides, anew in memory each time."""

    def __init__(self, batches: list[Any], *, is_shuffled: bool = True) -> None:
        self.batches, self.is_shuffled = batches, is_shuffled

    def __iter__(self) -> Iterator[Any]:
        batches = copy.deepcopy(self.batches)
        if self.is_shuffled:
            random.shuffle(batches)
        return iter(batches)

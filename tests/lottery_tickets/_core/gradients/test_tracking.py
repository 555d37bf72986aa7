"""What the tracker of a forward pass keeps, and how it calls its rules."""

import gc
import re
import weakref

import torch
from torch import Tensor

from lottery_tickets._core.gradients.inputs import InputSquares


def _multiply(inputs: InputSquares, **arguments: Tensor) -> str | None:
    handles, tracker = inputs.watch()
    with tracker:
        torch.matmul(torch.ones(2, 4), handles["weight"], **arguments)
    return tracker.find_reason()


def test_an_object_whose_methods_are_rules_is_freed_after_use() -> None:
    inputs = InputSquares({"weight": torch.ones(4, 3)})
    _multiply(inputs)
    alive = weakref.ref(inputs)
    del inputs
    gc.collect()
    assert alive() is None


def test_arguments_that_a_rule_does_not_know_are_told_whatever_was_called_before() -> None:
    inputs = InputSquares({"weight": torch.ones(4, 3)})
    for _ in range(2):
        assert _multiply(inputs) is None
        assert re.match(r"matmul is called with arguments .* 'out'", _multiply(inputs, out=torch.empty(2, 3)) or "")

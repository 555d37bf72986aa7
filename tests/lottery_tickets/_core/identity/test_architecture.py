"""What a model is apart from its weights."""

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets._core.identity.code import identify_architecture, identify_callable


class Block(nn.Module):
    def __init__(self, *, scale: float = 1.0, name: str = "a", size: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, 4), nn.Linear(4, 4)
        self.scale, self.name, self.calls, self.activation = scale, name, 0, torch.relu
        self.register_buffer("offset", torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        outputs: Tensor = self.second(self.activation(self.first(inputs))) * self.scale + self.offset
        return outputs


class OtherBlock(Block):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + inputs


def digest(model: nn.Module) -> str:
    identity = identify_architecture(model)
    assert identity["complete"], identity["says"]
    assert identity["digest"] is not None
    return identity["digest"]


def tie(block: Block) -> None:
    block.second.weight = block.first.weight


CHANGES: dict[str, Callable[[Block], object]] = {
    "option": lambda block: setattr(block, "scale", 2.0),
    "text": lambda block: setattr(block, "name", "b"),
    "function": lambda block: setattr(block, "activation", torch.tanh),
    "module": lambda block: setattr(block, "second", nn.Identity()),
    "bias": lambda block: setattr(block, "second", nn.Linear(4, 4, bias=False)),
    "name": lambda block: block.add_module("third", nn.Identity()),
    "dtype": lambda block: block.second.double(),
    "tie": tie,
    "frozen": lambda block: block.second.requires_grad_(requires_grad=False),
    "forward": lambda block: setattr(block, "forward", MethodType(OtherBlock.forward, block)),
    "buffer": lambda block: block.register_buffer("more", torch.zeros(1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_architecture_is_another_model(change: Callable[[Block], object]) -> None:
    block = Block()
    before = digest(block)
    change(block)
    assert digest(block) != before


def test_another_forward_is_another_model() -> None:
    block = OtherBlock()
    before = digest(block)
    assert before != digest(Block())


def test_options_of_modules_of_torch_count() -> None:
    assert digest(nn.Dropout(0.1)) != digest(nn.Dropout(0.2))
    attention = [nn.MultiheadAttention(4, 2, dropout=dropout) for dropout in (0.1, 0.2)]  # extra_repr does not show it
    assert digest(attention[0]) != digest(attention[1])


def test_weights_mode_and_calls_do_not_count() -> None:
    block = Block()
    before = digest(block)
    with torch.no_grad():
        block(torch.ones(1, 4))
        block.first.weight.add_(1)
    compiled: Any = torch.compile(block, backend="eager")
    assert digest(block.eval()) == before
    assert digest(copy.deepcopy(block)) == before
    assert digest(compiled) == before
    assert identify_architecture(block, "mine")["digest"] == identify_architecture(OtherBlock(), "mine")["digest"]


def test_lazy_modules_have_an_identity() -> None:
    assert digest(nn.LazyLinear(3)) == digest(nn.LazyLinear(3)) != digest(nn.Linear(2, 3))


def test_a_trainer_that_holds_a_model_is_told_by_its_weights() -> None:
    teacher = nn.Linear(2, 2)

    def train() -> nn.Module:
        return teacher

    before = identify_callable(train)["digest"]
    with torch.no_grad():
        teacher.weight.add_(1)
    assert identify_callable(train)["digest"] != before

"""Models whose scores ask for something of their own, under `fully_shard` or not."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.sharded import Stack


class Odd(nn.Module):
    """A weight is used in a way that has no rule, so samples are run one at a time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 7), nn.Linear(7, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the scores of the classes."""
        outputs: Tensor = self.second(functional.linear(inputs, self.first.weight.tanh(), self.first.bias))
        return outputs


class Idle(Stack):
    """Calls a layer once more, for nothing: this use of its weight has no gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the scores of the classes."""
        hidden = self.blocks(inputs)
        self.get_submodule("blocks.1.up")(hidden)
        outputs: Tensor = self.head(hidden)
        return outputs


class Tied(nn.Module):
    """Looks words up, and tells the next one by the same weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.layer, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        """Returns the scores of the words."""
        outputs: Tensor = self.head(torch.tanh(self.layer(self.words(words))).mean(1))
        return outputs


class WithLoss(Stack):
    """Computes its loss itself."""

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Any:  # noqa: ANN401 - scores, or what has a loss
        """Returns the scores of the classes; with labels, an object that has the loss."""
        logits = super().forward(inputs)
        return logits if labels is None else SimpleNamespace(loss=functional.cross_entropy(logits, labels))


class OddLinear(nn.Linear):
    """Uses its weight in a way that has no rule."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Returns the outputs."""
        return functional.linear(input, self.weight.tanh(), self.bias)


class Words(nn.Module):
    """A part of a language model; with tensor parallelism all of it is split, and sequences between its layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.norm = nn.Embedding(10, 6), nn.LayerNorm(6)
        self.up, self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 10, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        """Returns the scores of the words that come next, (samples, words, positions)."""
        hidden = self.words(words)
        hidden = hidden + self.down(torch.relu(self.up(self.norm(hidden))))
        outputs: Tensor = self.head(hidden)
        return outputs.transpose(1, 2)


class Picky(Stack):
    """Refuses some inputs in the middle of its forward pass, or skips a layer for them."""

    def __init__(self, *, skips: bool) -> None:
        super().__init__()
        self.skips = skips

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the scores of the classes."""
        hidden, is_odd = self.blocks[0](inputs), bool((inputs > 90).any())
        if is_odd and not self.skips:
            raise OverflowError("an input is above 90")
        outputs: Tensor = self.head(hidden if is_odd else self.blocks[1](hidden))
        return outputs

"""How `LightTrainer` trains: the one place where its options stand."""

import math
from dataclasses import dataclass
from typing import Literal

from lottery_tickets._core.checks import check_count, check_number


@dataclass(frozen=True)
class TrainerSettings:
    """How `LightTrainer` trains.

    Attributes:
        learning_rate: At least 0, constant.
        use_sgd: SGD with its step inside the backward pass; else AdamW.
        momentum: Of SGD, in [0, 1); costs one buffer a weight, in the weight's dtype.
        weight_decay: At least 0; SGD adds it to the gradient, AdamW decays the weights beside it.
        adamw_bits: Bits of each number of AdamW's state; 8 needs bitsandbytes.
        norm_l1: At least 0; times the sign of the batch-norm weights, added to their gradient (You et al. 2020, arXiv
            1909.11957). None for 1e-4 where their scales are what is ranked, and 0 otherwise.
        stochastic_rounding: Whether SGD rounds bfloat16 weights at random, right on average; rounded to nearest, small
            steps are lost. AdamW rounds to nearest.
        activation_checkpointing: Whether activations are computed again in the backward pass where the model offers
            it, as those of `transformers` do. It may change the last bits of gradients, whose sums take another order.
        max_batch_size: Samples that go through the model at once; larger batches are split, nothing is dropped.
        nonfinite_limit: Share of batches, in [0, 1], whose loss may be NaN or infinite; these are not trained on.

    Raises:
        TypeError: When a number is asked for and something else is given.
        ValueError: When a setting is out of range or does not go with another.
    """

    learning_rate: float = 1e-4
    use_sgd: bool = True
    momentum: float = 0.0
    weight_decay: float = 0.0
    adamw_bits: Literal[8, 32] = 32
    norm_l1: float | None = None
    stochastic_rounding: bool = True
    activation_checkpointing: bool = True
    max_batch_size: int | None = None
    nonfinite_limit: float = 0.1

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay"):
            check_number(name, getattr(self, name), "at least 0", lambda value: 0 <= value < math.inf)
        if self.norm_l1 is not None:
            check_number("norm_l1", self.norm_l1, "at least 0, or None", lambda value: 0 <= value < math.inf)
        check_number("momentum", self.momentum, "in [0, 1)", lambda value: 0 <= value < 1)
        check_number("nonfinite_limit", self.nonfinite_limit, "in [0, 1]", lambda value: 0 <= value <= 1)
        check_number("adamw_bits", self.adamw_bits, "8 or 32", lambda value: value in {8, 32})
        if self.max_batch_size is not None:
            check_count("max_batch_size", self.max_batch_size, "an integer of at least 1 or None")
        if self.momentum and not self.use_sgd:
            raise ValueError(f"momentum must be 0 for AdamW, which has its own, got {self.momentum!r}; use SGD")

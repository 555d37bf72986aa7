"""Outputs compared, NaN and infinities too; passes timed in turns."""

import math
import time

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets.structured.calling import compare_outputs, find_inputs, time_in_turns

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([INF, 2.0], [INF, 1.0], 1.0),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([1.0, 2.0], [NAN, 2.0], INF),
        ([1.0, 2.0], [INF, 2.0], INF),
        ([-INF, 2.0], [INF, 2.0], INF),
    ],
)
def test_outputs_that_are_not_finite_are_equal_to_themselves_alone(
    one: list[float], other: list[float], difference: float
) -> None:
    assert compare_outputs({"logits": torch.tensor(one)}, {"logits": torch.tensor(other)}) == difference


def test_models_take_turns_after_a_pass_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = [0.0], list[str]()

    class Timed(nn.Module):
        def __init__(self, name: str, seconds: list[float]) -> None:
            super().__init__()
            self.name, self.seconds = name, seconds

        def forward(self, inputs: Tensor) -> Tensor:
            assert not self.training
            turns.append(self.name)
            clock[0] += self.seconds.pop(0)
            return inputs

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    models = {"dense": Timed("dense", [50.0, 1.0, 9.0, 2.0]), "export": Timed("export", [70.0, 3.0, 3.0, 4.0])}
    assert time_in_turns(models, torch.zeros(1), num_turns=3) == {"dense": 2.0, "export": 3.0}
    assert turns == ["dense", "export"] * 4
    assert all(model.training for model in models.values())


def test_inputs_of_a_batch() -> None:
    inputs, labels = torch.zeros(2), torch.ones(2)
    assert find_inputs((inputs, labels)) is inputs
    assert find_inputs({"input_ids": inputs, "labels": labels}) == {"input_ids": inputs}
    assert find_inputs((inputs, labels), labels) is labels
    assert find_inputs(inputs) is None

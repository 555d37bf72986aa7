"""An early-bird run says how long it takes at most; that changes nothing in it."""

from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import compute_early_bird_tickets
from lottery_tickets._core.states import hash_state
from lottery_tickets._core.training import pace
from tests.data import make_data, split
from tests.models import make_mlp


def find(*, progress: bool, **settings: Any) -> str:  # noqa: ANN401 - of many types
    model, data = make_mlp(torch.float32), split(make_data(torch.float32), 3)
    options: dict[str, Any] = {"max_epochs": 2, "check_interval": 1, "learning_rate": 0.1, **settings}
    compute_early_bird_tickets(model, data, progress=progress, **options)
    return hash_state(model.state_dict())


@pytest.mark.parametrize("settings", [{}, {"check_steps": 3, "max_steps": 7}])
def test_what_is_told_leaves_no_trace(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pace, "REFRESH_SECONDS", 0.0)
    silent = find(progress=False, **settings)
    assert capsys.readouterr().err == ""
    assert find(progress=True, **settings) == silent
    num_steps = settings.get("max_steps", 8)
    said = capsys.readouterr().err
    assert f"at most {num_steps} steps, until the ticket has converged" in said
    assert f"{num_steps} of {num_steps} steps" in said


def test_epochs_of_somebody_elses_trainer_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    def train(model: nn.Module, _: object, *, epochs: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(epochs / 10)

    find(progress=True, trainer_fn=train)
    said = capsys.readouterr().err
    assert "at most 2 epochs" in said
    assert "2 of 2 epochs" in said

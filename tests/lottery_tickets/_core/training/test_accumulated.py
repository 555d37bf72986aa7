"""AdamW after the backward pass, from gradients that its pieces add up."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from tests.lottery_tickets._core.training.light_trainings import LR, OPTIMIZERS, assert_same, make_batches, train_pieces
from tests.models import make_mlp

# ------------------------------------------------------------------------------------------------------------- pieces


def test_adamw_accumulates_the_gradient_of_the_whole_batch() -> None:
    whole = train_pieces(LR, None, OPTIMIZERS["adamw"])
    assert torch.allclose(train_pieces(LR, 5, OPTIMIZERS["adamw"]), whole, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------------------------------------------- losses and limits


def test_a_batch_with_a_broken_piece_is_not_stepped_by_adamw_and_no_further_by_sgd() -> None:
    for use_sgd in (False, True):
        model = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            model.get_parameter("weight").fill_(1.0)
        batches = [torch.tensor([-100.0, float("nan"), 3.0]), torch.tensor([5.0, 5.0, 5.0])]
        settings = TrainerSettings(use_sgd=use_sgd, max_batch_size=1, learning_rate=0.3)
        trainer = LightTrainer(model, batches, settings, loss_fn=lambda m, x: (m(x[:, None]) + x).mean())
        trainer.train_steps(2)
        weight = model.weight.item()
        assert weight == pytest.approx(1 - 0.1 * (-100.0 + 15.0) if use_sgd else 1 - 0.3, rel=1e-5)


# -------------------------------------------------------------------------------------------------- the caller's things


def test_adamw_of_8_bits_is_that_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainerSettings(use_sgd=False, adamw_bits=8, learning_rate=LR)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError, match=r"adamw_bits=8 needs bitsandbytes, .*pip install bitsandbytes"):
        LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings)
    stand_in: Any = ModuleType("bitsandbytes")
    stand_in.optim = ModuleType("optim")
    stand_in.optim.AdamW8bit = torch.optim.Adagrad
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    model, expected = make_mlp(torch.float32), make_mlp(torch.float32)
    LightTrainer(model, make_batches("mlp"), settings).train_steps(1)
    optimizer = torch.optim.Adagrad(expected.parameters(), LR)
    compute_loss(expected, make_batches("mlp")[0]).backward()
    optimizer.step()
    assert_same(model, expected)

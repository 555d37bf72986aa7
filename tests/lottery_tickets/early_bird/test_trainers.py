"""Whoever trains, and however batches are split: one result."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    compute_early_bird_tickets,
    create_magnitude_mask,
)
from tests.lottery_tickets.early_bird.digits import make_digits_loader, strip, train_with_sgd
from tests.models import make_lenet


def test_trainer_that_returns_none_a_copy_or_the_model_gives_one_result() -> None:
    def train_a_copy(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        copy = deepcopy(model)
        train_with_sgd(copy, dataloader, epochs=epochs)
        return copy

    def train_and_return(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> nn.Module:
        train_with_sgd(model, dataloader, epochs=epochs)
        return model

    found = []
    for trainer in (train_with_sgd, train_a_copy, train_and_return):
        model = make_lenet()
        results = compute_early_bird_tickets(model, make_digits_loader(), trainer, max_epochs=6, check_interval=1)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert create_magnitude_mask(model, 0.5) == results["final_mask"]
        found.append({**strip(results), "settings": None})
    assert found[0]["converged"]
    assert found[0]["checkpoints"][0]["loss"] < found[0]["checkpoints"][0]["start_loss"]
    assert {**found[0], "final_mask": None} == {**found[1], "final_mask": None} == {**found[2], "final_mask": None}
    with pytest.raises(ValueError, match="trainer_fn must return the model it is given, a copy of it or None"):
        compute_early_bird_tickets(make_lenet(), make_digits_loader(), lambda *_, epochs: nn.Linear(epochs, 2))


def test_trainer_gets_split_batches_and_all_of_the_data() -> None:
    sizes = []

    def count(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        del model
        sizes.extend([len(inputs) for _ in range(epochs) for inputs, _ in dataloader])

    compute_early_bird_tickets(
        make_lenet(), make_digits_loader(), count, max_epochs=2, check_interval=1, max_batch_size=25
    )
    assert max(sizes) <= 25
    assert sum(sizes) == 2 * 1079


def test_batches_that_only_the_trainer_understands_are_its_own_affair() -> None:
    def train(model: nn.Module, dataloader: Iterable[Any], *, epochs: int) -> None:
        for _ in range(epochs):
            assert list(dataloader) == ["text"]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)

    found = compute_early_bird_tickets(make_lenet(), ["text"], train, max_epochs=3, check_interval=1)
    assert [check["loss"] for check in found["checkpoints"]] == [None] * 3
    assert found["verdict"] == "trivially stable"


def test_splitting_batches_changes_little() -> None:
    def train(size: int | None, use_sgd: bool) -> Tensor:
        model = make_lenet()
        settings = {"learning_rate": 0.01 if use_sgd else 1e-3, "use_sgd": use_sgd}
        compute_early_bird_tickets(model, make_digits_loader(), max_epochs=1, max_batch_size=size, **settings)  # type: ignore[arg-type] # of their types
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    start = torch.cat([parameter.detach().flatten() for parameter in make_lenet().parameters()])
    # SGD's pieces are steps of their own, equal to first order in the rate; AdamW accumulates: only rounding differs.
    for use_sgd, tolerance in ((True, 0.05), (False, 1e-3)):
        whole, split = train(None, use_sgd), train(16, use_sgd)
        assert float((split - whole).norm() / (whole - start).norm()) < tolerance

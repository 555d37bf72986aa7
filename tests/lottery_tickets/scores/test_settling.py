"""Scores take as many samples as their ranking needs to settle."""

import pytest
import torch
from torch import nn

from lottery_tickets import (
    ScoringOptions,
    compute_fisher_importance,
    create_importance_mask,
)
from tests.lottery_tickets.scores.battery import batch, make_data, make_mlp


def test_standard_errors_shrink_with_the_root_of_the_samples() -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = make_mlp(), make_data(4000)
    few = compute_fisher_importance(
        model, [(inputs[:1000], targets[:1000])], options=ScoringOptions(standard_errors=True)
    )
    many = compute_fisher_importance(model, [(inputs, targets)], 4000, options=ScoringOptions(standard_errors=True))
    assert few.standard_errors is not None
    assert many.standard_errors is not None
    for name, errors in few.standard_errors.items():
        ratio = float(errors.mean() / many.standard_errors[name].mean())
        assert 1.7 < ratio < 2.3, name  # 2, but for the noise of the errors themselves
        assert float(((few[name] - many[name]).abs() < 3 * errors).float().mean()) > 0.95
    assert compute_fisher_importance(model, [(inputs, targets)], 100).standard_errors is None


def test_auto_doubles_until_the_ranking_has_settled() -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = make_mlp(), make_data(5000)
    data = batch((inputs, targets), *[50] * 100)
    loose = compute_fisher_importance(model, data, "auto", options=ScoringOptions(target_sparsity=0.5, tolerance=0.2))
    tight = compute_fisher_importance(model, data, "auto", options=ScoringOptions(target_sparsity=0.5, tolerance=0.04))
    assert loose.report["settled"] is True
    assert [look["num_samples"] for look in tight.report["settling"]] == [128 * 2**i for i in range(
        len(tight.report["settling"]))]  # fmt: skip
    assert loose.report["num_samples"] < tight.report["num_samples"]
    assert tight.report["settling"][-1]["changed"] <= 0.04
    never = compute_fisher_importance(
        model, data[:3], "auto", options=ScoringOptions(target_sparsity=0.5, tolerance=0.0)
    )
    assert never.report["settled"] is False
    assert never.report["num_samples"] == 150


def test_the_change_by_a_doubling_estimates_the_error_that_is_left() -> None:
    """What the stopping rule rests on: mask(n) against mask(2n) differs as mask(2n) differs from the truth."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 4)), make_data(60_000)
    truth = create_importance_mask(compute_fisher_importance(model, [data], 60_000), 0.5)
    changed, wrong = [], []
    for start in range(0, 30_000, 500):
        masks = [create_importance_mask(compute_fisher_importance(
            model, [(data[0][start : start + n], data[1][start : start + n])]), 0.5) for n in (250, 500)]  # fmt: skip
        changed.append(1 - (masks[0] & masks[1]).num_kept / truth.num_kept)
        wrong.append(1 - (masks[1] & truth).num_kept / truth.num_kept)
    assert sum(changed) / sum(wrong) == pytest.approx(1, abs=0.25)

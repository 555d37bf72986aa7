"""Statistics by layer, against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from lottery_tickets.checkpoints import compute_layer_statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_figures_are_those_of_numpy(dtype: torch.dtype) -> None:
    weights = torch.randn(70, 40).to(dtype)
    weights[:, 3] = 0
    weights[5, 5] = -0.0
    [found] = compute_layer_statistics({"a.weight": weights}).values()
    values = weights.double().numpy()
    assert (found["num_weights"], found["num_zeros"], found["num_not_finite"]) == (2800, 71, 0)
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert found["std"] == pytest.approx(values.std(), rel=1e-9)
    assert found["norm"] == pytest.approx(np.linalg.norm(values), rel=1e-12)
    assert (found["least"], found["greatest"]) == (values.min(), values.max())
    assert (found["shape"], found["dtype"]) == ([70, 40], str(dtype).removeprefix("torch."))


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    [found] = compute_layer_statistics({"a.weight": torch.tensor([[1.0, float("nan")], [float("inf"), 3.0]])}).values()
    assert (found["num_not_finite"], found["mean"], found["greatest"]) == (2, 2.0, 3.0)
    [none] = compute_layer_statistics({"a.weight": torch.full((2, 2), float("nan"))}).values()
    assert (none["mean"], none["std"], none["least"], none["norm"]) == (None, None, None, 0.0)


def test_a_model_has_a_row_for_each_prunable_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    assert list(compute_layer_statistics(model)) == ["0.weight", "2.weight"]
    assert list(compute_layer_statistics(model, exclude="0")) == ["2.weight"]

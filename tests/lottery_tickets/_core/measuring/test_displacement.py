"""How far weights are from where they started, against the obvious way to compute it."""

import pytest
import torch

from lottery_tickets._core.measuring.displacement import measure_displacement
from lottery_tickets._core.weights import TensorWeight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_movement_is_what_it_says(dtype: torch.dtype) -> None:
    start = torch.randn(700, 500).to(dtype)
    now = start.float().clone()
    now[::3] += 0.5 * torch.randn(234, 500)
    now = now.to(dtype)
    found = measure_displacement(TensorWeight("w", now.t()), TensorWeight("w", start.t()))
    moved = now.double() - start.double()
    assert found.num_moved == int((now.double() != start.double()).sum())
    assert found.squared_distance == pytest.approx(float(moved.square().sum()), rel=1e-5)
    assert found.squared_start == pytest.approx(float(start.double().square().sum()), rel=1e-5)

"""A snapshot's codes sort like the magnitudes of the moment, and stay as they are."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.snapshots import Backend, take_snapshot
from tests.lottery_tickets.early_bird.magnitudes import BACKENDS, normal, uniform
from tests.strategies import score_lists

# ----------------------------------------------------------------------------------------------------- codes and shares


@given(tensors=score_lists())
@settings(max_examples=100, deadline=None)
def test_codes_sort_like_magnitudes(tensors: list[Tensor]) -> None:
    snapshot = take_snapshot(Weights.from_tensors({str(i): tensor for i, tensor in enumerate(tensors)}))
    for tensor, codes in zip(tensors, snapshot.codes.values(), strict=True):
        assert codes.shape == tensor.shape
        assert (codes.dtype, codes.device.type) == (torch.int16, "cpu")
    if tensors:
        codes = torch.cat([codes.flatten() for codes in snapshot.codes.values()]).int() & 0xFFFF
        flat = torch.cat([tensor.double().abs().float().flatten() for tensor in tensors])
        ordered = codes[flat.argsort()]
        assert bool((ordered.diff() >= 0).all())
        assert len(codes.unique()) <= len(flat.unique())  # ties stay tied
        assert all(len(codes[flat == value].unique()) == 1 for value in flat.unique())


def test_float64_has_the_codes_of_float32() -> None:
    weight = normal(10_000) * 1e-3
    one, other = (
        take_snapshot(Weights.from_tensors({"w": weight})),
        take_snapshot(Weights.from_tensors({"w": weight.double()})),
    )
    assert torch.equal(one.codes["w"], other.codes["w"])


def test_codes_of_pruned_models_are_left_to_what_is_kept() -> None:
    pruned = torch.where(uniform(100_000, seed=1) < 0.99, 0.0, normal(100_000))
    codes = take_snapshot(Weights.from_tensors({"w": pruned})).codes["w"]
    assert len(codes.unique()) > 0.9 * len(pruned.abs().unique())


# ---------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_by_name(backend: Backend, dtype: torch.dtype, value: float) -> None:
    weights = {"good": torch.ones(3, dtype=dtype), "fc.weight": torch.tensor([1.0, value, 2.0], dtype=dtype)}
    with pytest.raises(ValueError, match=r"'fc.weight' must be finite to be ranked, but holds NaN or infinity"):
        take_snapshot(Weights.from_tensors(weights), backend=backend)


def test_weights_stay_as_they_are_and_later_steps_do_not_reach_a_snapshot() -> None:
    weight = normal(100).bfloat16().requires_grad_()
    before = weight.detach().clone()
    snapshot = take_snapshot(Weights.from_tensors({"w": weight}))
    codes = snapshot.codes["w"].clone()
    assert torch.equal(weight, before)
    with torch.no_grad():
        weight.mul_(3)
    assert torch.equal(snapshot.codes["w"], codes)

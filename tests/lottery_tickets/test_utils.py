"""The histogram quantile is the exact order statistic, whatever the values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import utils
from lottery_tickets._core.determinism import seed_everything, seeded
from lottery_tickets.utils import compute_histogram_quantile
from tests.strategies import score_tensors

INTEGERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def lower(tensor: Tensor, q: float) -> float:
    return float(np.quantile(tensor.to(torch.float64).numpy(), q, method="lower"))


@given(
    tensor=score_tensors().filter(lambda tensor: tensor.numel() > 0),
    q=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)),
    bins=st.sampled_from([2, 3, 1000]),
    chunk=st.sampled_from([50, 1 << 15]),
)
@settings(max_examples=200, deadline=None)
def test_it_is_the_lower_quantile_of_numpy(tensor: Tensor, q: float, bins: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "VALUES_PER_CHUNK", chunk)
        assert compute_histogram_quantile(tensor, q, bins) == lower(tensor, q)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 1.0])
def test_integers_have_quantiles_too(dtype: torch.dtype, q: float) -> None:
    tensor = torch.randint(0, 2 if dtype == torch.bool else 100, (50,), generator=torch.Generator().manual_seed(0))
    tensor = tensor.to(dtype)
    assert compute_histogram_quantile(tensor, q) == lower(tensor, q)


def test_extremes_of_64_bits_do_not_overflow() -> None:
    limits = torch.iinfo(torch.int64)
    values = torch.tensor([limits.min, -1, 0, limits.max])
    assert [compute_histogram_quantile(values, q, 2) for q in (0, 0.34, 0.67, 1)] == [-(2.0**63), -1.0, 0.0, 2.0**63]
    huge = torch.finfo(torch.float64).max
    floats = torch.tensor([-huge, -5e-324, 5e-324, huge], dtype=torch.float64)
    assert [compute_histogram_quantile(floats, q, 2) for q in (0, 0.34, 0.67, 1)] == floats.tolist()


def test_infinities_are_ordered_and_zero_has_no_sign() -> None:
    values = torch.tensor([torch.inf, -torch.inf, -0.0])
    assert [compute_histogram_quantile(values, q) for q in (0, 0.5, 1)] == [-torch.inf, 0.0, torch.inf]
    assert str(compute_histogram_quantile(values, 0.5)) == "0.0"


def test_torch_quantile_fails_above_2_to_the_24_and_on_bfloat16_and_we_do_not() -> None:
    large = torch.zeros(1).expand(2**24 + 1)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(large, 0.9)
    assert compute_histogram_quantile(large, 0.9) == 0.0
    short = torch.tensor([3.0, 1.0, 2.0]).bfloat16()
    with pytest.raises(RuntimeError, match="float or double"):
        torch.quantile(short, 0.5)
    assert compute_histogram_quantile(short, 0.5) == 2.0


def test_one_outlier_does_no_harm() -> None:
    # A histogram of fixed width over [min, max] answers with a bin's edge: near 0 or 0.05, never 0.033.
    tensor = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).abs() * 0.02
    tensor[7] = 50.0
    assert compute_histogram_quantile(tensor, 0.9) == lower(tensor, 0.9) == pytest.approx(0.033, abs=0.001)


@pytest.mark.parametrize(
    ("tensor", "q", "bins", "error", "message"),
    [
        (torch.ones(2), -0.1, 10, ValueError, "q must be from 0 to 1, got -0.1"),
        (torch.ones(2), float("nan"), 10, ValueError, "q must be from 0 to 1, got nan"),
        (torch.ones(2), 0.5, 1, ValueError, "bins must be 2 or more, got 1"),
        (torch.empty(0, 3), 0.5, 10, ValueError, r"a quantile needs values, got an empty tensor of shape \(0, 3\)"),
        (torch.tensor([1.0, torch.nan]), 0.5, 10, ValueError, "the tensor holds NaN"),
        (
            torch.ones(2, dtype=torch.complex64),
            0.5,
            10,
            TypeError,
            "float, integer or boolean tensor, got torch.complex64",
        ),
    ],
)
def test_bad_arguments_are_refused(tensor: Tensor, q: float, bins: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compute_histogram_quantile(tensor, q, bins)


def test_seeding_draws_what_torch_draws_and_leaves_devices_that_are_not_there_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with seeded(0):
        torch.manual_seed(7)
        wanted = torch.rand(3)
        if not torch.accelerator.is_available():
            monkeypatch.setattr(torch, "manual_seed", None)  # it would keep the seed for each of them
        seed_everything(7)
        assert torch.equal(torch.rand(3), wanted)

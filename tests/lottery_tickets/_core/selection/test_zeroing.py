"""Pruned places of tensors that no loop of ours reaches: as on a GPU, each is filled by torch."""

import pytest
import torch
from torch import Tensor

from lottery_tickets._core.bits import pack_bits
from lottery_tickets._core.selection.zeroing import PrunedPlaces


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_no_loop_reaches_is_zeroed_again_and_again(unpacked: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kept = torch.rand(6, 5) < 0.5
    places = PrunedPlaces(pack_bits(kept), compiled=True, unpacked=unpacked)
    for tensor in (make_strided(dtype), make_strided(dtype)):
        assert places.any_nonzero(tensor)
        places.zero_(tensor)
        assert not places.any_nonzero(tensor)
        assert torch.equal(tensor != 0, kept)
    own = make_strided(dtype)
    places.learn(own)
    places.zero_own_(own)
    own.fill_(torch.nan)
    places.zero_own_(own)
    assert torch.equal(own.isnan(), kept)
    assert torch.equal(own.signbit() & ~kept, torch.zeros(6, 5, dtype=torch.bool))  # +0.0


def test_bits_follow_the_tensors_to_another_device() -> None:
    places = PrunedPlaces(pack_bits(torch.eye(3, dtype=torch.bool)), compiled=False)
    for device in ("meta", "cpu", "meta", "cpu"):
        places.zero_(torch.ones(3, 3, device=device).t())
    found = torch.ones(3, 3).t()
    places.zero_(found)
    assert torch.equal(found, torch.eye(3))


def make_strided(dtype: torch.dtype) -> Tensor:
    """Returns numbers that are no zeros, in a tensor that is not contiguous."""
    return torch.rand(5, 6, dtype=torch.float64).add(0.5).to(dtype).t()

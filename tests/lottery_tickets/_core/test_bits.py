"""Packed bits that are cut are those of the cut tensor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_tickets._core import bits
from lottery_tickets._core.bits import cut_bits, pack_bits


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_part_is_packed_as_if_it_were_alone(start: int, size: int, rest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "CHUNK_BYTES", 2)
        kept = torch.from_numpy(np.random.default_rng(0).random(start + size + rest) < 0.5)
        assert torch.equal(cut_bits(pack_bits(kept), start, start + size), pack_bits(kept[start : start + size]))

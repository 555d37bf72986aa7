"""Sums in bounded blocks are those of the whole."""

import pytest
import torch

from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.values import SQUARE
from tests.lottery_tickets._core.gradients.cases import NOT_SEPARABLE, SEPARABLE, run_stream


@pytest.mark.parametrize(
    "case", ["mlp", "vgg", "tied, called twice", "torch attention", "many positions", "norms", "detour"]
)
@pytest.mark.parametrize("chunk_size", [1, 7, 64, 10**9])
def test_blocks_never_change_the_result(case: str, chunk_size: int) -> None:
    model, batches = {**SEPARABLE, "detour": NOT_SEPARABLE["detour"][0]}[case]()
    whole = run_stream(model.double(), batches).compute_means(SQUARE)
    blocked = run_stream(model, batches, options=ScoringOptions(chunk_size=chunk_size)).compute_means(SQUARE)
    for name, mean in whole.items():  # to rounding: a matrix product of other size adds in another order
        torch.testing.assert_close(blocked[name], mean, rtol=1e-12, atol=1e-20)

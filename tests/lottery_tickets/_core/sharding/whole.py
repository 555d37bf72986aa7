"""What is checked in each process of scores that are computed with whole weights."""

from typing import Any, cast

import pytest
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from lottery_tickets import compute_grasp_importance
from tests.lottery_tickets._core.sharding.scoring import (
    SCORES,
    check,
    check_as_before,
    draw_samples,
    shard,
    take_own,
)
from tests.sharded import Stack


def check_whole() -> None:
    """Scores that are computed with whole weights, of models that were never run; an error leaves all as it was."""
    for name in ("grasp", "synflow"):
        plain, sharded = Stack().double(), Stack().double()
        shard(sharded, *sharded.blocks, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
        found = check(sharded, plain, SCORES[name], draw_samples())  # not rounded, as modules would compute
        assert all(score.to_local().numel() < score.numel() for score in cast(Any, found).values())
    plain, sharded = Stack().double(), Stack().double()
    shard(sharded, *sharded.blocks)
    batches = take_own(draw_samples())
    if not torch.distributed.get_rank():
        batches[-1][0].fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss of each batch must be finite"):
        compute_grasp_importance(sharded, batches)
    check_as_before(sharded, plain)

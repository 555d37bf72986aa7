"""What is checked in each process of scores under tensor parallelism: who has parts of a weight sees the same data."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from lottery_tickets import compute_fisher_importance, compute_grasp_importance, compute_wanda_importance
from tests.lottery_tickets._core.sharding.scored import OddLinear, Words
from tests.lottery_tickets._core.sharding.scoring import (
    SCORES,
    Score,
    check_as_before,
    compare,
    cut,
    draw_samples,
    holding_one_weight,
    read_until,
    take_own,
)
from tests.sharded import Stack, make_mesh, make_sharded


def check_scores(kind: str, names: Iterable[str]) -> None:
    """Scores of a model under tensor parallelism: processes that have parts of one weight see the same samples."""
    plain, sharded = Stack().double(), make_sharded(kind, dtype=torch.float64)
    reader = (make_mesh(2, 2).get_local_rank(0), 2) if kind == "both" else (0, 1)
    with holding_one_weight():
        for name in names:
            found = SCORES[name](sharded, take_own(draw_samples(), reader=reader))
            compare(found, SCORES[name](plain, cut(draw_samples(), 4)))
            split: Any = found["blocks.0.up.weight"]
            assert split.to_local().numel() == split.numel() // torch.distributed.get_world_size()
    check_as_before(sharded, plain)


def check_all() -> None:
    """All layers are split, sequences between them, and the loss: what is gathered for a rule has any placement."""
    mesh = make_mesh(torch.distributed.get_world_size())
    plan: dict[str, ParallelStyle] = {
        "words": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Shard(1)),
        "head": ColwiseParallel(input_layouts=Shard(1), use_local_output=False),
    }
    plain, sharded = Words().double(), parallelize_module(Words().double(), mesh, plan)
    words = torch.randint(10, (12, 5), generator=torch.Generator().manual_seed(3))
    every = ["words.weight", "norm.*", "up.*", "down.*", "head.weight"]
    batches = cut((words[:, :4], words[:, 1:]), 6)
    scores: list[Score] = [partial(compute_fisher_importance, include=every), compute_wanda_importance]
    scores.append(partial(compute_grasp_importance, include=every))
    for compute in scores:
        with loss_parallel():
            found = compute(sharded, batches)
        compare(found, compute(plain, batches))
    head, split = (nn.Linear(6, 4, bias=False).double() for _ in range(2))
    split.load_state_dict(head.state_dict())
    parallelize_module(split, mesh, ColwiseParallel(use_local_output=False))
    for kind in ("exact", "sampled"):  # labels that are found from the scores of the classes, which are split
        batches = cut((draw_samples(8)[0], torch.arange(8) % 4), 4)
        with loss_parallel():
            found = compute_fisher_importance(split, batches, kind=kind)
        compare(found, compute_fisher_importance(head, batches, kind=kind))


def check_odd() -> None:
    """Where a split weight is used without a rule, samples are run one at a time."""
    plain, sharded = (nn.Sequential(OddLinear(6, 7), nn.ReLU(), nn.Linear(7, 5)).double() for _ in range(2))
    sharded.load_state_dict(plain.state_dict())
    mesh = make_mesh(torch.distributed.get_world_size())
    parallelize_module(sharded, mesh, {"0": ColwiseParallel(output_layouts=Replicate())})
    for compute in (SCORES["clipped"], SCORES["units"]):
        found = compute(sharded, cut(draw_samples(), 5))
        compare(found, compute(plain, cut(draw_samples(), 4)))
        assert "tanh, for which there is no rule" in str(found.report["reason"])


def list_errors() -> list[str]:
    """Returns what is said where one of those that see the same samples fails, or sees others."""
    rank, last = torch.distributed.get_rank(), torch.distributed.get_world_size() - 1
    plain, sharded = Stack().double(), make_sharded("tensor", dtype=torch.float64)
    batches, said = cut(draw_samples(), 5), []

    def fail(*_: object) -> None:
        raise OverflowError("too hot here")

    for data, place in ((batches, 1), (read_until(batches, last), 2), (batches[rank:], 2)):
        hook = sharded.blocks[1].register_forward_pre_hook(fail if (rank, place) == (last, 1) else lambda *_: None)
        with pytest.raises((OSError, ArithmeticError, ValueError)) as caught:
            compute_fisher_importance(sharded, data)
        hook.remove()
        said.append(f"{caught.type.__name__}: {caught.value}")
    compare(compute_fisher_importance(sharded, batches), compute_fisher_importance(plain, batches))
    check_as_before(sharded, plain)
    return said

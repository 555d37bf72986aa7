"""What is checked in each process of searches for early-bird tickets that train sharded models."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lottery_tickets import EarlyBirdWatcher, TrainerSettings, compute_early_bird_tickets
from tests.lottery_tickets._core.sharding.models import gather
from tests.lottery_tickets._core.sharding.watching import compare_figures, draw_rule
from tests.sharded import Stack, make_mesh, make_sharded

SGD = TrainerSettings(0.05, use_sgd=True, momentum=0.9, max_batch_size=8)
ADAMW = TrainerSettings(0.01, use_sgd=False, max_batch_size=8)


def search(model: nn.Module, data: list[tuple[Tensor, Tensor]], **options: Any) -> Any:  # noqa: ANN401 - results of any option
    """Trains for two epochs, with a check after each; returns the results."""
    return compute_early_bird_tickets(model, data, max_epochs=2, check_interval=1, **options)


def draw_batches() -> list[tuple[Tensor, Tensor]]:
    """Returns a few batches, the same in each process."""
    return draw_rule()[0][:3]


def train(model: nn.Module, dataloader: Iterable[tuple[Tensor, Tensor]], *, epochs: int) -> None:
    """A caller's trainer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()


def check_trainers() -> None:
    """Each trainer takes a sharded model where it takes the plain one, and so do the checks on the way."""
    ways: list[tuple[str, dict[str, Any]]] = [
        ("tensor", {"training": SGD}),
        ("tensor", {"training": ADAMW}),
        ("fsdp", {"trainer_fn": train}),
    ]
    for kind, options in ways:
        models = Stack(12).double(), make_sharded(kind, 12, torch.float64)
        expected, found = (search(model, draw_batches(), **options) for model in models)
        compare_figures(found["checkpoints"], expected["checkpoints"])
        assert found["final_mask"].gather() == expected["final_mask"]
        assert found["settings"]["start_sha256"] == expected["settings"]["start_sha256"]
        assert all(parameter.grad is None for parameter in models[1].parameters())
        for name, value in gather(models[1]).items():
            torch.testing.assert_close(value, models[0].state_dict()[name])


def check_other_samples() -> None:
    """Processes train on samples of their own; a batch that is not finite in one of them is dropped by all."""
    rank, world, data = torch.distributed.get_rank(), torch.distributed.get_world_size(), draw_batches()
    own = [(inputs[rank::world].clone(), targets[rank::world]) for inputs, targets in data]
    if not rank:
        own[1][0][0] = torch.nan
    models = make_sharded("fsdp", 12, torch.float64), Stack(12).double()
    settings = TrainerSettings(0.05, use_sgd=True)
    found, expected = (
        search(model, batches, training=settings)
        for model, batches in zip(models, (own, [data[0], data[2]]), strict=True)
    )
    assert [check["num_nonfinite_losses"] for check in found["checkpoints"]] == [1, 1]
    assert found["settings"]["probe"] is None  # each has other samples
    with pytest.raises(ValueError, match="must have the same probe, but its samples differ"):
        EarlyBirdWatcher(models[0], probe=own[0])
    assert found["final_mask"].gather() == expected["final_mask"]
    for name, value in gather(models[0]).items():
        torch.testing.assert_close(value, models[1].state_dict()[name])


def check_rounding() -> None:
    """Shards of bfloat16 weights are rounded at random; copies of one weight must be rounded alike."""
    data = [(inputs.bfloat16(), targets) for inputs, targets in draw_batches()]
    model = make_sharded("fsdp", 12, torch.bfloat16)
    before = gather(model)
    search(model, data, training=SGD)
    moved = {name: float((value - before[name]).abs().max()) for name, value in gather(model).items()}
    assert all(0 < by < 1 for by in moved.values()), moved
    copied = Stack(12).bfloat16()
    parallelize_module(
        copied, make_mesh(torch.distributed.get_world_size()), {"head": ColwiseParallel(output_layouts=Replicate())}
    )
    with pytest.raises(ValueError, match="copies of one bfloat16 weight must be rounded alike"):
        search(copied, data, training=SGD)


def check_refused() -> None:
    """Files, channels, and copies that would drift apart."""
    model, data = make_sharded("fsdp", 12, torch.float64), draw_batches()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"run_folder": "kept"}, "run_folder= must be None where 2 processes train one model"),
        ({"path": "found.json"}, "path= must be None where 2 processes train one model"),
        ({"channels": True}, "tickets of channels need whole weights"),
    ]
    for options, words in refused:
        with pytest.raises(ValueError, match=words):
            search(model, data, **options)
    parallel = DistributedDataParallel(Stack(12).double())
    with pytest.raises(ValueError, match="must be trained by AdamW"):
        search(parallel, data)
    found, expected = search(parallel, data, training=ADAMW), search(Stack(12).double(), data, training=ADAMW)
    compare_figures(found["checkpoints"], expected["checkpoints"])

"""What is checked in each process of a Lightning training whose model is under `fully_shard`: it is watched."""

import os
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import EarlyBirdWatcher
from lottery_tickets.integrations.lightning import EarlyBirdCallback
from tests.lottery_tickets._core.sharding.watching import compare_figures
from tests.sharded import Stack


class Module(LightningModule):
    """A stack, each of whose blocks is gathered by itself where there is a mesh."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Stack().double()

    def configure_model(self) -> None:
        """Shards the model."""
        if self.device_mesh is not None:
            for part in (*self.net.blocks, self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the loss."""
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(callback: EarlyBirdCallback, folder: str, **options: Any) -> EarlyBirdWatcher:  # noqa: ANN401 - Lightning's
    """Trains eight steps, on the same batches in each process; returns the watcher."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, dtype=torch.float64, generator=generator)
    data = TensorDataset(inputs, torch.randint(5, (64,), generator=generator))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer: Any = Trainer(
        max_epochs=1,
        accelerator="cpu",
        use_distributed_sampler=False,
        callbacks=[callback],
        default_root_dir=folder,
        **quiet,  # type: ignore[arg-type]
        **options,
    )
    trainer.fit(Module(), DataLoader(data, batch_size=8))
    assert callback.watcher is not None
    return callback.watcher


def check_watching(folder: str) -> None:
    """The watch of a sharded training finds what that of a plain one finds; it writes nothing."""
    rank, world = str(torch.distributed.get_rank()), str(torch.distributed.get_world_size())
    make = partial(EarlyBirdWatcher, check_steps=2)
    expected = fit(EarlyBirdCallback(make), folder, devices=1)
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # the group is there already
    environment = dict(zip(names, (rank, rank, "0", world, world, "test"), strict=True)) | address
    sharded = {"devices": int(world), "strategy": ModelParallelStrategy(int(world), 1)}
    with patch.dict(os.environ, environment):
        callback = EarlyBirdCallback(make)
        found = fit(callback, folder, **sharded)
        assert callback.state_dict() == {}
        sharded["strategy"] = ModelParallelStrategy(int(world), 1)
        with pytest.raises(ValueError, match="pass folder=None, and take"):
            fit(EarlyBirdCallback(make, folder=Path(folder) / "bird"), folder, **sharded)
    assert len(found.checkpoints) == len(expected.checkpoints) == 4
    compare_figures(found.checkpoints, expected.checkpoints)
    assert found.draw_ticket(last=True).gather() == expected.draw_ticket(last=True)

"""What is checked in each process of a `Trainer` whose model is under `fully_shard`: it is watched."""

import os
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.distributed import DistributedConfig

from lottery_tickets import EarlyBirdWatcher
from lottery_tickets.integrations.transformers import EarlyBirdCallback
from tests.lottery_tickets._core.sharding.watching import compare_figures
from tests.models import make_language_model

NUM_STEPS = 8
SIZES = {"vocab_size": 16, "num_hidden_layers": 1, "attention_dropout": 0.0}


def train(model: nn.Module, callback: EarlyBirdCallback, folder: str, num_processes: int) -> EarlyBirdWatcher:
    """Trains on batches of which all samples are equal, so that each process sees the same; returns the watcher."""
    arguments = TrainingArguments(
        folder,
        max_steps=NUM_STEPS,
        per_device_train_batch_size=4,
        learning_rate=0.03,
        logging_steps=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    sample = {"input_ids": list(range(8)), "labels": list(range(8))}
    Trainer(model, arguments, train_dataset=[sample] * 32 * num_processes, callbacks=[callback]).train()
    assert callback.watcher is not None
    return callback.watcher


def check_watching(folder: str) -> None:
    """The watch of a sharded training finds what that of a plain one finds; it writes nothing."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    make, stored = partial(EarlyBirdWatcher, check_steps=2), Path(folder) / "llama"
    plain: Any = make_language_model("Llama", **SIZES, pad_token_id=0).double()
    plain.save_pretrained(stored)  # by the first process alone
    torch.distributed.barrier()
    expected = train(plain, EarlyBirdCallback(make), folder, 1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    environment = dict(zip(names, map(str, (rank, rank, world, world)), strict=True))
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # the group is there already
    with patch.dict(os.environ, environment):
        sharded = AutoModelForCausalLM.from_pretrained(
            stored, distributed_config=DistributedConfig(fsdp_size=world), dtype=torch.float64
        )
        found = train(sharded, EarlyBirdCallback(make), folder, world)
        with pytest.raises(ValueError, match="pass folder=None, and take"):
            train(sharded, EarlyBirdCallback(make, folder=Path(folder) / "bird"), folder, world)
    assert len(found.checkpoints) == len(expected.checkpoints) == NUM_STEPS // 2
    compare_figures(found.checkpoints, expected.checkpoints)
    assert found.draw_ticket(last=True).gather() == expected.draw_ticket(last=True)

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
from transformers.distributed.configuration_utils import DistributedConfig

from lottery_tickets import EarlyBirdWatcher
from lottery_tickets.early_bird.probe import Probe
from lottery_tickets.integrations.transformers import EarlyBirdCallback
from tests.lottery_tickets._core.sharding.watching import compare_figures
from tests.models import make_language_model

NUM_STEPS, BATCH = 8, 4
PATTERNS = [[(start + step * place) % 16 for place in range(8)] for start in range(8) for step in range(1, 5)]
SAMPLES = [{"input_ids": pattern, "labels": pattern} for pattern in PATTERNS]
SIZES = {"vocab_size": 16, "num_hidden_layers": 1, "attention_dropout": 0.0}


def train(model: nn.Module, callback: EarlyBirdCallback, folder: str, num_processes: int) -> EarlyBirdWatcher:
    """Trains, with as many samples a step however many processes there are; returns the watcher."""
    arguments = TrainingArguments(
        folder,
        max_steps=NUM_STEPS,
        per_device_train_batch_size=BATCH // num_processes,
        learning_rate=0.03,
        logging_steps=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    Trainer(model, arguments, train_dataset=SAMPLES, callbacks=[callback]).train()
    assert callback.watcher is not None
    return callback.watcher


def check_watching(folder: str) -> None:
    """The watch of a sharded training finds what that of a plain one finds; it writes nothing."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    make, stored = partial(EarlyBirdWatcher, check_steps=2), Path(folder) / "llama"
    probe = [{name: torch.tensor([sample[name] for sample in SAMPLES]) for name in SAMPLES[0]}]
    plain: Any = make_language_model("Llama", **SIZES, pad_token_id=0).double()
    plain.save_pretrained(stored)  # by the first process alone
    torch.distributed.barrier()
    expected = train(plain, EarlyBirdCallback(make, probe=probe), folder, 1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    environment = dict(zip(names, map(str, (rank, rank, world, world)), strict=True))
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # the group is there already
    with patch.dict(os.environ, environment):
        config = DistributedConfig(fsdp_size=world)
        sharded = AutoModelForCausalLM.from_pretrained(stored, distributed_config=config, dtype=torch.float64)
        unasked = EarlyBirdCallback(make)
        unasked._watch.begin(sharded, 0, default=Probe(probe))
        assert unasked.watcher is not None
        assert not unasked.watcher.has_probe  # it must be the same in each process, which only the caller knows
        callback = EarlyBirdCallback(make, probe=probe)
        found = train(sharded, callback, folder, world)
        assert callback._watch.to_saved() is None
        with pytest.raises(ValueError, match="pass folder=None, and take"):
            train(sharded, EarlyBirdCallback(make, folder=Path(folder) / "bird"), folder, world)
    assert len(found.checkpoints) == len(expected.checkpoints) == NUM_STEPS // 2
    compare_figures(found.checkpoints, expected.checkpoints)
    assert found.draw_ticket(last=True).gather() == expected.draw_ticket(last=True)

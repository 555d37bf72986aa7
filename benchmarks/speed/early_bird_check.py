"""What one early-bird check of a 100 M-parameter language model costs beside one training step of it at 8 x 512 tokens.

`python -m benchmarks.speed.early_bird_check` writes `benchmarks/results/early_bird_check.json`. The floor of
a check is reading the weights and the starting weights once: 8 bytes a weight over the memory's bandwidth.
"""

import itertools
import statistics
from typing import Final

import torch

from benchmarks.common import take_turns, write_results
from benchmarks.studies.small_transformer import build_transformer
from lottery_tickets import EarlyBirdWatcher
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings

NUM_REPEATS: Final = 3
BATCH: Final = (8, 512)
SIZES: Final = {
    "vocab_size": 8192,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
}


def main() -> None:
    """Takes turns: a step, a check, one read of the weights."""
    model = build_transformer(0, **SIZES)
    batches = [{"input_ids": torch.randint(SIZES["vocab_size"], BATCH)} for _ in range(NUM_REPEATS + 1)]
    settings = TrainerSettings(activation_checkpointing=False)
    trainer = LightTrainer(model, batches, settings)
    watcher = EarlyBirdWatcher(model)
    weights = list(model.parameters())
    steps = itertools.count(1)
    seconds = take_turns(
        {
            "step": lambda: trainer.train_steps(1),
            "check": lambda: watcher.check(model, next(steps), {"loss": 1.0}),
            "read": lambda: [weight.detach().sum() for _ in range(2) for weight in weights],
        },
        NUM_REPEATS,
    )
    print(seconds)
    ratios = {
        "check_over_step": [check / step for check, step in zip(seconds["check"], seconds["step"], strict=True)],
        "check_over_two_reads": [check / read for check, read in zip(seconds["check"], seconds["read"], strict=True)],
    }
    payload = {
        "num_parameters": sum(weight.numel() for weight in weights),
        "num_ranked": sum(watcher.draw_ticket().shapes[name].numel() for name in watcher.draw_ticket()),
        "batch": BATCH,
        "seconds": seconds,
        **{name: {"median": statistics.median(v), "least": min(v), "most": max(v)} for name, v in ratios.items()},
    }
    print(write_results("early_bird_check", payload))


if __name__ == "__main__":
    main()

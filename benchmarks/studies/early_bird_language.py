"""Early-bird tickets of language models on English text: where one emerges, and where the honest verdict is another.

`python -m benchmarks.studies.early_bird_language scratch` trains a small transformer from scratch, `finetune` trains
SmolLM2-135M further; each writes its part of `benchmarks/results/early_bird_language.json`.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import torch

from benchmarks.common import load_language, read_results, write_results
from benchmarks.studies.small_transformer import build_transformer, load_bytes
from lottery_tickets import ConvergenceRule, TrainerSettings, compute_early_bird_tickets, detect_early_bird_convergence
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets.early_bird.watcher import EarlyBirdResults

NAME: Final = "early_bird_language"
NUM_REPLICATES: Final = 3
FIGURES: Final = (
    *("epoch", "step", "correlation", "corrected_distance", "corrected_start_distance", "share_moved", "movement"),
    *("gap", "gap_z", "loss", "start_loss", "verdict", "seconds"),
)


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("scratch", "finetune"))
    part = parser.parse_args().part
    parts = read_results(NAME)
    del parts["machine"]
    parts[part] = list(train_from_scratch() if part == "scratch" else finetune())
    print(write_results(NAME, parts))


def train_from_scratch() -> Iterator[dict[str, Any]]:
    """Yields the runs of the small transformer: two optimizers, three seeds, four sparsities at once."""
    torch.set_num_threads(1)
    arguments: dict[str, dict[str, Any]] = {
        "AdamW 1e-3": {"use_sgd": False, "learning_rate": 1e-3},
        "SGD 0.05, momentum 0.9": {"learning_rate": 0.05, "momentum": 0.9},
        "SGD 1e-4 (the default)": {},
    }
    for optimizer, given in arguments.items():
        for replicate in range(NUM_REPLICATES if given else 1):  # the default does the same in each
            batches = list(islice(load_bytes(derive_seed(3, replicate), batch_size=16, num_tokens=128), 300))
            model = build_transformer(replicate)
            training = TrainerSettings(activation_checkpointing=False, **given)
            found = compute_early_bird_tickets(
                model, batches, max_epochs=1, training=training, check_steps=20, seed=replicate
            )
            yield _describe(f"small transformer, {optimizer}", replicate, found)


def finetune() -> Iterator[dict[str, Any]]:
    """Yields the runs of SmolLM2-135M: the default trainer in bfloat16, and AdamW in float32."""
    network, batches = load_language(batch_size=2, num_tokens=128, num_batches=24)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    runs: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
        "bfloat16, SGD 1e-4 (the default)": (torch.bfloat16, {}),
        "bfloat16, SGD 1e-4 without stochastic rounding": (torch.bfloat16, {"stochastic_rounding": False}),
        "float32, AdamW 2e-5": (torch.float32, {"use_sgd": False, "learning_rate": 2e-5}),
    }
    for name, (dtype, given) in runs.items():
        network.float().load_state_dict(state)
        model = network.to(dtype)
        training = TrainerSettings(activation_checkpointing=False, **given)
        found = compute_early_bird_tickets(model, batches, max_epochs=1, training=training, check_steps=4)
        yield _describe(f"SmolLM2-135M, {name}", 0, found)


def _describe(name: str, replicate: int, found: EarlyBirdResults) -> dict[str, Any]:
    common = detect_early_bird_convergence(found["checkpoints"], ConvergenceRule(require_movement=False))
    print(time.strftime("%H:%M"), name, found["verdict"], found["reason"], "| common:", common["verdict"], flush=True)
    checks = [{figure: check[figure] for figure in FIGURES} for check in found["checkpoints"]]
    return {
        "name": name,
        "replicate": replicate,
        "verdict": found["verdict"],
        "reason": found["reason"],
        "step": found["checkpoints"][-1]["step"] if found["converged"] else None,
        "common_verdict": common["verdict"],
        "common_epoch": common["convergence_epoch"],
        "checks": checks,
    }


if __name__ == "__main__":
    main()

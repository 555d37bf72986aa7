"""Early-bird at the shape of Qwen2.5-14B on one GPU: peak memory, time of a step beside plain fused SGD, a full check.

`python -m benchmarks.speed.early_bird_14b` needs a GPU of 80 GB, 90 GB of CPU memory and the package
transformers, and writes `benchmarks/results/early_bird_14b.json`. Weights are random: memory and time do not depend on
them. `--tiny` runs the same code on a model of 1 M parameters, on any device, and writes nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from benchmarks.common import write_results
from lottery_tickets import EarlyBirdWatcher
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings

NUM_STEPS: Final = 5
BATCH: Final = (2, 512)
SHAPE: Final[dict[str, Any]] = {
    "vocab_size": 152_064,
    "hidden_size": 5120,
    "intermediate_size": 13_824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
TINY: Final[dict[str, Any]] = {
    **SHAPE,
    "vocab_size": 512,
    "hidden_size": 80,
    "intermediate_size": 216,
    "num_hidden_layers": 4,
}


def main() -> None:
    """Measures early-bird first, then plain SGD, whose gradients may not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    is_tiny = parser.parse_args().tiny
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = Qwen2Config(**(TINY if is_tiny else SHAPE), use_cache=False)
    with device:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call] # as below
    vocabulary = model.config.vocab_size
    batches = [{"input_ids": torch.randint(vocabulary, BATCH, device=device)} for _ in range(NUM_STEPS + 1)]
    payload: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
        "weight_bytes": sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        "largest_gradient_bytes": max(weight.numel() * weight.element_size() for weight in model.parameters()),
        "batch": BATCH,
        "early_bird": measure_early_bird(model, batches, device),
        "plain_sgd": measure_plain_sgd(model, batches, device),
    }
    plain = payload["plain_sgd"]
    if "median_step_seconds" in plain:
        payload["step_over_plain"] = payload["early_bird"]["median_step_seconds"] / plain["median_step_seconds"]
    print(payload)
    if not is_tiny:
        print(write_results("early_bird_14b", payload))


def measure_early_bird(model: Qwen2ForCausalLM, batches: list[Any], device: torch.device) -> dict[str, Any]:
    """Returns the peaks and times of the default trainer's steps, and of one full check."""
    start = time.perf_counter()
    watcher = EarlyBirdWatcher(model)
    watch_seconds = time.perf_counter() - start
    trainer = LightTrainer(model, batches, TrainerSettings())
    figures = _measure_steps(lambda _: trainer.train_steps(1), batches, device)
    start, before = time.perf_counter(), _reset_peak(device)
    check = watcher.check(model, NUM_STEPS, {})
    _wait(device)
    return {
        **figures,
        "start_seconds": watch_seconds,
        "check_seconds": time.perf_counter() - start,
        "check_extra_bytes": _peak(device) - before,
        "verdict": check["verdict"],
        "share_moved": check["share_moved"],
        "mask_bytes": watcher.draw_ticket().nbytes,
    }


def measure_plain_sgd(model: Qwen2ForCausalLM, batches: list[Any], device: torch.device) -> dict[str, Any]:
    """Returns the same for torch's fused SGD after the backward pass, with the same activation checkpointing."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[no-untyped-call] # transformers has no types here
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, fused=True)

    def step(batch: dict[str, torch.Tensor]) -> None:
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        return _measure_steps(step, batches, device)
    except torch.cuda.OutOfMemoryError as error:
        return {"out_of_memory": str(error).partition("\n")[0]}


def _measure_steps(step: Callable[[Any], object], batches: list[Any], device: torch.device) -> dict[str, Any]:
    seconds = []
    _reset_peak(device)
    for batch in batches:
        start = time.perf_counter()
        step(batch)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return {"median_step_seconds": statistics.median(seconds[1:]), "peak_bytes": _peak(device)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


if __name__ == "__main__":
    main()

"""Exact masks of the 14.77 billion weights of Qwen2.5-14B's shape on one GPU, beside reading the weights once.

A section of `python -m benchmarks.speed.gpu`; it needs 32 GB of the GPU. Weights are random and bfloat16. The floor of
a mask is to read each weight once (`amax`) and to bring its bits, an eighth of a byte a weight, to the CPU, where masks
lie.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.early_bird_14b import SHAPE, TINY
from lottery_tickets import create_magnitude_mask

TakeTurns = Callable[[Mapping[str, Callable[[], object]], int], dict[str, dict[str, float]]]


def measure_large_masks(
    device: torch.device,
    take_turns: TakeTurns,
    measure_peak: Callable[[Callable[[], object]], int | None],
    *,
    is_tiny: bool,
) -> dict[str, Any]:
    """Returns seconds of a mask by scope, of one read, and of bringing the bits to the CPU, and bytes beside weights.

    Args:
        device: Where.
        take_turns: Returns the least and the median seconds of calls.
        measure_peak: Returns the bytes that a call takes on the device beside what is there.
        is_tiny: Whether to try the code only.
    """
    weights = make_weights(TINY if is_tiny else SHAPE, device)
    num_weights = sum(weight.numel() for weight in weights.values())
    bits = torch.zeros(num_weights // 8, dtype=torch.uint8, device=device)
    make_mask = partial(create_magnitude_mask, weights, 0.5)
    seconds = take_turns(
        {
            "read": lambda: [weight.view(torch.int16).amax() for weight in weights.values()],
            "bits to the CPU": lambda: bring(bits),
            "mask, global": make_mask,
        },
        3,
    )
    print(seconds, flush=True)
    for scope in ("layer", "row"):  # which take longer
        seconds |= take_turns({f"mask, {scope}": partial(make_mask, scope=scope)}, 1)
        print(scope, seconds[f"mask, {scope}"], flush=True)
    floor = sum(seconds[name]["median"] for name in ("read", "bits to the CPU"))
    masks = {name: times["median"] for name, times in seconds.items() if name.startswith("mask")}
    return {
        "num_weights": num_weights,
        "weight_bytes": sum(weight.nbytes for weight in weights.values()),
        "seconds": seconds,
        "over_read": {name: median / seconds["read"]["median"] for name, median in masks.items()},
        "over_floor": {name: median / floor for name, median in masks.items()},
        "extra_bytes": measure_peak(make_mask),
    }


def bring(bits: Tensor) -> Tensor:
    """Returns bits on the CPU, by way of page-locked memory where they lie on a GPU."""
    if bits.device.type == "cpu":
        return bits.clone()
    staged = torch.empty(bits.shape, dtype=bits.dtype, pin_memory=True)
    return staged.copy_(bits).clone()


def make_weights(shape: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Returns random weights of a decoder, by name."""
    width, hidden = shape["hidden_size"], shape["intermediate_size"]
    narrow = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    sizes = {"q": (width, width), "k": (narrow, width), "v": (narrow, width), "o": (width, width)}
    sizes |= {"gate": (hidden, width), "up": (hidden, width), "down": (width, hidden)}
    layers = range(shape["num_hidden_layers"])
    named = {f"{layer}.{name}.weight": size for layer in layers for name, size in sizes.items()}
    named |= dict.fromkeys(("embedding.weight", "head.weight"), (shape["vocab_size"], width))
    generator = torch.Generator(device).manual_seed(0)
    return {
        name: torch.empty(size, dtype=torch.bfloat16, device=device).normal_(std=0.02, generator=generator)
        for name, size in named.items()
    }
